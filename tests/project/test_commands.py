"""The commands that a person is told to type are the ones that exist, and CI runs the same."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = (
    "bench",
    "bench-service",
    "chaos",
    "check",
    "demo",
    "help",
    "install",
    "serve",
    "test",
    "zoo",
)


def test_make_alone_lists_every_target() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(TARGETS) <= set(re.findall(r"make ([a-z-]+)", listed))


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_made(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_ci_runs_exactly_what_the_readme_says() -> None:
    lines = [
        line
        for line in (ROOT / ".ci/run").read_text().splitlines()
        if line and not line.startswith(("#", "set ", "cd "))
    ]
    assert lines == ["exec make test"]


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_begins_with_the_two_commands(readme: str) -> None:
    commands = re.findall(r"^    (make \w+)", (ROOT / readme).read_text(), flags=re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md", *ROOT.glob("docs/**/*.md")])
def test_every_make_target_named_in_the_documentation_exists(page: str | Path) -> None:
    text = (ROOT / page).read_text()
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", text, flags=re.MULTILINE))
    assert named <= known
