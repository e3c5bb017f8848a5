"""``torchpruner prune``: a file on this machine, no service, no PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.service.running import PATIENCE

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from torchpruner_client.cli import app
app()
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "HOME": "/nonexistent"},
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    stored = {
        "conv.weight": rng.standard_normal((32, 3, 3, 3)),
        "conv.bias": rng.standard_normal(32),
        "head.weight": rng.standard_normal((10, 32, 1, 1)),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Conv", ["r", "head.weight"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in stored.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def output_shape(path: Path) -> list[int]:
    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": np.zeros((1, 3, 8, 8), np.float32)})
    return list(result.shape)


def test_slices_that_are_named_go_with_what_goes_with_them(file, tmp_path):
    out = tmp_path / "out.onnx"
    done = run(
        "prune", str(file), "-i", "x:1x3x8x8", "--cut", "self.conv.weight[0]=0-15", "-o", str(out)
    )
    assert done.returncode == 0, done.stderr
    assert "self.head.weight" in done.stdout and "1,216 -> 608" in done.stdout
    weights = {t.name: list(t.dims) for t in onnx.load(out).graph.initializer}
    assert weights["conv.weight"] == [16, 3, 3, 3] and weights["head.weight"] == [10, 16, 1, 1]
    assert output_shape(out) == [1, 10, 6, 6]


def test_a_budget_is_kept_and_reported_as_json(file, tmp_path):
    out = tmp_path / "out.onnx"
    done = run(
        *("prune", str(file), "-i", "x:1x3x8x8", "--flops", "50%", "--round-to", "4"),
        *("-o", str(out), "--json"),
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    result = shown["result"]
    assert result["flops_after"] <= result["flops_before"] / 2
    assert shown["size"] == out.stat().st_size
    assert output_shape(out) == [1, 10, 6, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cut", "self.conv.weight[0]=0"], "x=1x3x224x224"),
        (["-i", "x:1x3x8x8"], "say what goes"),
        (["-i", "x:1x3x8x8", "--cut", "self.conv.weight=0"], "NODE[DIM]=INDICES"),
        (["-i", "x:1x3x8x8", "--cut", "self.con.weight[0]=0"], "self.conv.weight"),
        (["-i", "x:1x3x8x8", "--cut", "self.conv.weight[0]=0-31"], "leave at least one"),
        (["-i", "x:1x3x8x8", "--value", "z=1", "--flops", "50%"], "no input called 'z'"),
        (["-i", "x:1x3x8x8", "--flops", "0%"], "0%"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(file, tmp_path, arguments, message):
    out = tmp_path / "out.onnx"
    done = run("prune", str(file), "-o", str(out), *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_is_not_there_or_no_model_is_named(tmp_path):
    nonsense = tmp_path / "nonsense.onnx"
    nonsense.write_bytes(b"nonsense")
    for path in (tmp_path / "none.onnx", nonsense):
        done = run("prune", str(path), "--flops", "50%", "-o", str(tmp_path / "out.onnx"))
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert path.name in done.stderr or "not an ONNX model" in done.stderr


def test_help_names_the_ways_to_say_what_goes():
    done = run("prune", "--help")
    assert done.returncode == 0
    for part in ("--cut", "--flops", "--plan", "--value"):
        assert part in done.stdout


def test_a_pruned_file_is_verified_on_two_batches_before_it_is_written(
    file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "half.onnx"
    cut = ["--cut", "self.conv.weight[0]=0-15", "--input", "x:1x3x8x8:float32"]
    done = run("prune", str(file), "-o", str(output), *cut, "--verify", "--json")
    assert done.returncode == 0, done.stderr
    verified = json.loads(done.stdout)["verified"]
    assert ["a random batch" in verified[0], "a second random batch" in verified[1]] == [True, True]
    shown = run("prune", str(file), "-o", str(output), *cut, "--verify")
    assert "verified: on a random batch it differs by" in shown.stdout
