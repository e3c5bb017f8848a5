"""Files in other tools' dialects: every cut that the zoo tries on them is right, and none is refused."""

from __future__ import annotations

import pytest

from benchmarks.zoo.wild import made
from benchmarks.zoo.wild.examine import examine

SAMPLE = (
    "torch.onnx transformer",
    "TorchScript convolutions",
    "quantised dynamic per channel recurrent",
    "quantised QDQ convolutions",
    "quantised QOperator convolutions",
    "quantised QOperator transformer",
    "int4 MatMulNBits transformer",
    "transformers optimizer bert",
    "onnxruntime extended transformer",
    "dtype float16",
    "dtype float64",
    "operator set 7",
    "operator set 26",
    "PaddlePaddle's dialect",
    "tf2onnx's dialect",
    "weights behind operators",
    "unnamed values",
)
FILES = {file.name: file for file in made.files()}


@pytest.mark.parametrize("name", SAMPLE)
def test_every_cut_of_the_file_is_right(name, monkeypatch):
    monkeypatch.setattr(
        "benchmarks.zoo.wild.peer.halve", lambda *_: {"state": "not asked", "removed": 0}
    )
    row = examine(FILES[name], lambda _: None)
    assert row["built"] and not row["error"] and row["groups"] > 0
    states = [(cut["status"], cut.get("reason")) for cut in row["cuts"]]
    assert len(states) == 5 and all(state in ("equal", "unproven") for state, _ in states), states
    assert sum(state == "equal" for state, _ in states) >= 4
    assert row["half"]["state"] == "runs" and row["half"]["removed"] > 0
