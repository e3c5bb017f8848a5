"""The command line, as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.service.models import small_file
from tests.service.running import RunningService


def run(service: RunningService, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torchpruner_client.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={"TORCHPRUNER_URL": service.url, "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
    )


@pytest.fixture(scope="module")
def uploaded(service: RunningService, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("cli") / "small.pt"
    file.write_bytes(small_file(401).content)
    done = run(service, "upload", str(file), "-i", "x:1x3x8x8", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["state"] == "ready" and shown["name"] == "small"
    return str(shown["id"])


@pytest.mark.parametrize("command", ["modules", "groups", "flops"])
def test_every_listing_prints_a_table_and_json(
    service: RunningService, uploaded: str, command: str
) -> None:
    table = run(service, command, "small")
    assert table.returncode == 0 and table.stdout.strip(), table.stderr
    assert json.loads(run(service, command, uploaded, "--json").stdout)


def test_modules_can_be_filtered(service: RunningService, uploaded: str) -> None:
    found = json.loads(run(service, "modules", uploaded, "--type", "Conv2d", "--json").stdout)
    assert [item["name"] for item in found] == ["self.conv1", "self.conv2"]


def test_a_cut_is_shown_saved_and_downloaded(
    service: RunningService, uploaded: str, tmp_path: Path
) -> None:
    saved = tmp_path / "cut.json"
    arguments = ("cut", uploaded, "self.conv1.weight", "--index", "0-2,5", "--save", str(saved))
    table = run(service, *arguments)
    assert "self.conv2.weight" in table.stdout and "parameters" in table.stdout, table.stderr
    shown = json.loads(run(service, *arguments, "--json").stdout)
    assert shown["terminal"]["self.bn.weight"] == [[0, 1, 2, 5]]
    weights = tmp_path / "pruned.safetensors"
    done = run(service, "download", uploaded, str(weights), "--cut", str(saved), "--json")
    assert done.returncode == 0, done.stderr
    assert load_file(weights)["conv1.weight"].shape[0] == 4
    model = tmp_path / "pruned.onnx"
    assert run(service, "download", uploaded, str(model), "--cut", str(saved)).returncode == 0
    assert model.stat().st_size > 0


def test_errors_are_one_line_and_exit_1(service: RunningService, uploaded: str) -> None:
    done = run(service, "cut", uploaded, "self.nope", "--index", "0")
    assert done.returncode == 1
    assert "unknown-node" in done.stderr and "Traceback" not in done.stderr
    assert run(service, "cut", uploaded, "self.conv1.weight", "--index", "a").returncode == 1
    assert run(service, "flops", "nothing of that name").returncode == 1
