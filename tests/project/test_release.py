"""The wheel of a release: built, installed into an empty environment, and used there."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment that has the wheel and what it requires, no extra."""
    folder = tmp_path_factory.mktemp("release")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT],
        check=True,
        timeout=550,
    )
    (wheel,) = folder.glob(f"torchpruner_service-{VERSION}-*.whl")
    venv.create(folder / "env", with_pip=True)
    program = folder / "env/bin/python"
    constraints = ROOT / "constraints.txt"
    install = [program, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    subprocess.run([*install, "-c", constraints, wheel], check=True, timeout=550)
    return folder / "env/bin"


def run(*command: object, code: int = 0) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=550, cwd="/"
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_release_installs_into_an_empty_environment_and_works(installed: Path) -> None:
    assert run(installed / "torchpruner", "--version").strip() == VERSION
    assert "plan" in run(installed / "torchpruner", "--help")
    said = run(installed / "torchpruner", "models", "--url", "http://127.0.0.1:9", code=1)
    assert "Traceback" not in said
    code = "import torchpruner_core as tp; print(tp.Budget(flops='50%').limits({'flops': 1000}))"
    assert "500" in run(installed / "python", "-c", code)
    needs = "import torchpruner_core as tp; tp.ONNXGraph"
    assert "torchpruner-service[onnx]" in run(installed / "python", "-c", needs, code=1)
    for program, extra in (
        ("torchpruner-service", "service"),
        ("torchpruner-dashboard", "dashboard"),
    ):
        assert f"torchpruner-service[{extra}]" in run(installed / program, "--help", code=1)


def test_the_changelog_begins_with_the_version_that_is_built() -> None:
    found = re.search(
        r"^## \[?(\d+\.\d+\.\d+)\]?", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert found is not None and found[1] == VERSION
