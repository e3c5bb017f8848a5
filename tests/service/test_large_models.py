"""A model past the two gigabytes that one ONNX file can hold is analysed all the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.errors import ExportError
from torchpruner_core.exporting import captured, torch_programs
from torchpruner_service.sandbox import tasks
from torchpruner_service.sandbox.frames import DATA, FrameReader, FrameWriter


@pytest.mark.parametrize("kind", ["pt2", "torchscript"])
def test_an_archive_past_the_limit_of_one_file_is_analysed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    file = tmp_path / "model"
    if kind == "pt2":
        torch.export.save(torch.export.export(layers.eval(), (torch.zeros(1, 8),)), file)
    else:
        torch.jit.trace(layers.eval(), torch.zeros(1, 8)).save(str(file))
    args = {
        "path": str(file),
        "format": kind,
        "inputs": [{"name": "", "shape": [1, 8], "dtype": "float32"}],
    }
    (tmp_path / "cuts").write_text("[]")
    for entrance in (captured, torch_programs):
        monkeypatch.setattr(entrance, "PROTOBUF_LIMIT", 64)
    frames = tmp_path / "frames"
    descriptor = os.open(frames, os.O_WRONLY | os.O_CREAT)
    try:
        out = FrameWriter(descriptor)
        assert tasks.build(args, out) == {"weightless": False}
        # The whole file is past the limit: what needs it says so, with the next step.
        with pytest.raises(ExportError, match="weightless form"):
            tasks.onnx({**args, "cuts": str(tmp_path / "cuts")}, out)
    finally:
        os.close(descriptor)
    reader = FrameReader()
    reader.feed(frames.read_bytes())
    graph = SolvedGraph.from_bytes(
        b"".join(payload for kind, payload in reader.frames() if kind == DATA)
    )
    cut = graph.cut_analysis("self.0.weight", [3], 0)
    assert cut.to_dict()["terminal"]["self.2.weight"][1] == [3]
