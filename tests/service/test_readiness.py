"""Readiness is what a process can do, and each trouble has its name; one service to a data folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from tests.service.models import small_file
from tests.service.running import PATIENCE, RunningService, environment, running_service, until
from tests.service.test_access import caller, keys
from tests.service.test_object_stores import BUCKET, client, s3

__all__ = ["s3"]


def readiness(service: RunningService) -> tuple[int, dict[str, object]]:
    answer = service.client.get("/readyz")
    return answer.status_code, answer.json()


def run(
    service: RunningService, *arguments: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torchpruner_service.cli", *arguments],
        env={**service.environment, "COLUMNS": "500", **settings},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.fixture(scope="module")
def own() -> Iterator[RunningService]:
    with running_service() as running:
        yield running


def test_a_second_service_on_the_folder_says_who_holds_it(own: RunningService) -> None:
    second = run(own, "serve", "--port", "0", "--data-dir", str(own.data_dir))
    assert second.returncode == 1
    assert own.process is not None
    for words in (str(own.data_dir), str(own.process.pid), own.url, "--data-dir"):
        assert words in second.stderr
    # The first one is untouched: its queue is still its own.
    assert own.upload(small_file(2201).content, "x:1x3x8x8")["state"] == "ready"


def test_a_killed_service_leaves_no_lock(tmp_path: Path) -> None:
    with running_service("--workers", "0", ready=False, data_dir=tmp_path) as service:
        assert service.process is not None
        service.process.kill()
        service.process.wait()
        service.start()
        assert service.client.get("/healthz").status_code == 200


def valkey_of(service: RunningService) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(service.data_dir / "valkey" / "valkey.sock"))


def test_a_socket_that_was_removed_comes_back_with_its_jobs(own: RunningService) -> None:
    kept = own.upload(small_file(2202).content, "x:1x3x8x8")
    (own.data_dir / "valkey" / "valkey.sock").unlink()
    until(lambda: (own.data_dir / "valkey" / "valkey.sock").exists())
    own.wait_ready()
    until(lambda: readiness(own)[0] == 200)
    assert own.upload(small_file(2203).content, "x:1x3x8x8")["state"] == "ready"
    assert own.wait_model(kept["id"])["state"] == "ready"


def test_a_redis_that_only_open_connections_reach_is_noticed_and_left(tmp_path: Path) -> None:
    """As when a second server takes the first one's address."""
    from torchpruner_service.embedded import EmbeddedValkey
    from torchpruner_service.settings import Settings

    servers = [EmbeddedValkey(Settings(data_dir=tmp_path / name)) for name in ("a", "b")]
    for server in servers:
        server.start()
    try:
        paths = [Path(server.url.removeprefix("unix://")) for server in servers]
        with running_service(
            "--workers", "0", ready=False, REDIS_URL=servers[0].url, TORCHPRUNER_AUTH="off"
        ) as service:
            assert readiness(service)[0] == 200
            os.replace(paths[1], paths[0])
            status, body = readiness(service)
            assert status == 503 and "two different Redis servers" in str(body["message"])
            assert readiness(service)[0] == 200
            shown = service.client.post(
                "/v1/models", params={"input": "x:1x3x8x8"}, content=small_file(2204).content
            ).json()
            assert shown["state"] == "queued"
            new = redis.Redis(unix_socket_path=str(paths[0]))
            assert new.llen("rq:queue:torchpruner-build") == 1
    finally:
        for server in servers:
            server.stop()


def test_a_full_redis_is_called_full(own: RunningService) -> None:
    file = small_file(2205)
    kept = own.upload(file.content, *file.inputs)
    connection = valkey_of(own)
    connection.config_set("maxmemory", "1mb")
    try:
        status, body = readiness(own)
        assert (status, body["ready"]) == (503, False)
        assert "Redis is full" in str(body["message"])
        refused = own.client.post(
            "/v1/models", params={"input": "x:1x3x8x8"}, content=small_file(2206).content
        )
        assert (refused.status_code, refused.json()["type"]) == (503, "redis-full")
        assert own.cut(kept["id"], "self.conv1.weight", [0])["terminal"]
    finally:
        connection.config_set("maxmemory", "0")
    until(lambda: readiness(own)[0] == 200)
    assert own.upload(small_file(2206).content, "x:1x3x8x8")["state"] == "ready"


def test_a_missing_bucket_is_called_missing(s3: str) -> None:
    with running_service(
        "--workers",
        "0",
        ready=False,
        STORAGE_URL="s3://not-made",
        AWS_ENDPOINT_URL=s3,
        AWS_REGION="us-east-1",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
    ) as service:
        status, body = readiness(service)
        assert (status, body["storage"]) == (503, False)
        assert "bucket of s3://not-made does not exist" in str(body["message"])
        refused = service.client.post(
            "/v1/models", params={"input": "x:1x3x8x8"}, content=small_file(2207).content
        )
        assert (refused.status_code, refused.json()["type"]) == (503, "bad-storage")
        assert "does not exist" in refused.json()["detail"]
        client(s3).create_bucket(Bucket="not-made")
        until(lambda: readiness(service)[0] == 200)


def test_a_store_that_hangs_makes_nobody_wait_long(tmp_path: Path) -> None:
    """The store is frozen, not away: connections stay open and nothing comes."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with running_service(
        "--workers",
        "0",
        ready=False,
        STORAGE_URL=f"s3://{BUCKET}",
        AWS_ENDPOINT_URL=url,
        AWS_REGION="us-east-1",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
    ) as service:
        status, body = readiness(service)
        assert status == 503 and "did not answer within" in str(body["message"])
    listener.close()


def test_keys_are_made_only_where_somebody_serves_from(own: RunningService, tmp_path: Path) -> None:
    elsewhere = run(own, "keys", "create", XDG_DATA_HOME=str(tmp_path))
    assert elsewhere.returncode == 1 and not elsewhere.stdout
    for words in ("--data-dir", "STORAGE_URL", str(tmp_path / "torchpruner-service")):
        assert words in elsewhere.stderr
    assert not list(tmp_path.iterdir())
    wrong = run(own, "keys", "create", "--data-dir", str(tmp_path / "typo"))
    assert wrong.returncode == 1
    right = run(own, "keys", "create", "--tenant", "t", "--data-dir", str(own.data_dir))
    assert right.returncode == 0 and right.stdout.startswith("tp_")
    listed = run(own, "keys", "list", "--data-dir", str(own.data_dir))
    assert right.stdout.split("_")[1] in listed.stdout


def test_a_rate_limit_holds_while_redis_is_away() -> None:
    with running_service("--workers", "0", ready=False, TORCHPRUNER_AUTH="on") as service:
        limited = caller(
            service, keys(service, "create", "--tenant", "limited", "--rate-limit", "4")
        )
        limited.get("/v1")
        assert service.process is not None
        (valkey,) = [
            child
            for child in psutil.Process(service.process.pid).children()
            if "valkey-server" in child.name()
        ]
        valkey.send_signal(signal.SIGKILL)
        (service.data_dir / "valkey" / "valkey.sock").unlink(missing_ok=True)
        for process in service.processes("--with-parent"):
            process.kill()
        statuses, policies, minute = [], set(), time.time() // 60
        for _ in range(12):
            answer = limited.get("/v1")
            statuses.append(answer.status_code)
            policies.add(answer.headers["ratelimit-policy"].partition(";")[0])
        minutes = 1 + time.time() // 60 - minute
        assert statuses.count(200) <= 4 * minutes and set(statuses) <= {200, 429}, statuses
        assert policies <= {'"key"', '"process"'}


def test_the_embedded_default_still_needs_no_settings(tmp_path: Path) -> None:
    started = RunningService(tmp_path, environment())
    started.start()
    try:
        assert httpx.get(f"{started.url}/healthz").json() == {"status": "ok"}
    finally:
        started.stop()
