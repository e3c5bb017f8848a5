"""ONNX files as people have them, over the service: data files in a zip, values of inputs, notes."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load
from torch import nn

from tests.core.graph.test_foreign_files import external, packed
from tests.core.operators.test_control_flow import spoken
from tests.service.running import RunningService
from torchpruner_client import Client
from torchpruner_core import prune_onnx, solve_onnx
from torchpruner_core.importing import external_data
from torchpruner_core.importing.external_data import unpacked
from torchpruner_service.sandbox import tasks
from torchpruner_service.sandbox.frames import FrameWriter
from torchpruner_service.worker.context import STAGES


def test_a_zip_of_a_model_and_its_data_files_is_one_upload(
    service: RunningService, tmp_path: Path
) -> None:
    path = external(tmp_path)
    with Client(service.url) as client:
        remote = client.upload(packed(path), name="zipped")
        assert remote.info.state == "ready" and remote.info.counts["params"] == 900
        assert not remote.info.weightless
        result = remote.cut_analysis("self.a", [0, 7], 1)
        target = tmp_path / "pruned.onnx"
        remote.download_onnx(result, target)
        weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(target).graph.initializer}
        whole = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        np.testing.assert_array_equal(weights["a"], np.delete(whole["a"], [0, 7], axis=1))


def test_the_sdk_sends_data_files_along_or_leaves_the_weights_out(
    service: RunningService, tmp_path: Path
) -> None:
    path = external(tmp_path)
    with Client(service.url) as client:
        bare = client.upload(path, name="bare")
        assert bare.info.weightless and bare.info.counts["params"] == 900
        whole = client.upload(path, name="whole", weights=True)
        assert not whole.info.weightless
        assert whole.cut_analysis("self.a", [3], 1) == bare.cut_analysis("self.a", [3], 1)


@pytest.mark.parametrize("location", ["../data.bin", "/etc/passwd", "other.bin"])
def test_data_files_that_lead_elsewhere_fail_in_words(
    service: RunningService, tmp_path: Path, location: str
) -> None:
    path = external(tmp_path)
    model = onnx.load(path, load_external_data=False)
    # A small tensor of integers is read when the graph is built.
    shape = numpy_helper.from_array(np.array([2, 20]), "shape")
    shape.ClearField("raw_data")
    shape.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        shape.external_data.add(key=key, value=value)
    model.graph.initializer.append(shape)
    model.graph.node[0].input[0] = "r"
    model.graph.node.insert(0, helper.make_node("Reshape", ["x", "shape"], ["r"]))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model.onnx", model.SerializeToString())
        archive.write(tmp_path / "data.bin", "data.bin")
    answer = service.client.post("/v1/models", content=stream.getvalue())
    assert answer.status_code == 202
    wrong = r"no name of a file|not in the archive"
    with Client(service.url) as client, pytest.raises(Exception, match=wrong):
        client.model(answer.json()["id"]).wait()


def test_a_value_of_an_input_decides_conditions(service: RunningService) -> None:
    content = spoken()
    answer = service.client.post(
        "/v1/models", params={"input": ["x:2x3", "sr:scalar:int64=16000"]}, content=content
    )
    assert answer.status_code == 202, answer.text
    with Client(service.url) as client:
        remote = client.model(answer.json()["id"])
        remote.wait()
        assert remote.info.inputs[1].value == (16000,)
        result = remote.cut_analysis("self.w", [0], 1)
        assert result.inputs[1].value == (16000,)
    shown = service.client.get(f"/v1/models/{answer.json()['id']}").json()
    assert "value" not in shown["inputs"][0] and shown["inputs"][1]["value"] == [16000]
    bad = service.client.post(
        "/v1/models", params={"input": ["x:2x3", "sr:scalar:int64=1,2"]}, content=content
    )
    assert bad.status_code == 422 and "2 numbers" in bad.json()["detail"]


def test_what_a_file_has_lost_is_told_and_its_weights_are_named(
    service: RunningService, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6)).eval()
    stream = io.BytesIO()
    torch.onnx.export(model, (torch.randn(2, 5, 12),), stream, dynamo=False)
    with Client(service.url) as client:
        remote = client.upload(stream.getvalue(), weights=True)
        assert any("torch.onnx.export" in note for note in remote.info.notes)
        result = remote.cut_analysis("self.0.weight", [0, 1], 1)
        target = tmp_path / "pruned.safetensors"
        remote.download_pruned(result, target)
    weights = load(target.read_bytes())
    kept = model[0].weight.detach().numpy()[2:]
    np.testing.assert_array_equal(weights["0.weight"], kept.T)


def test_several_files_are_one_upload_of_several_parts(
    service: RunningService, tmp_path: Path
) -> None:
    path = external(tmp_path)
    data = path.with_name("data.bin").read_bytes()
    parts = [("files", ("model.onnx", path.read_bytes())), ("files", ("data.bin", data))]
    answers = [service.client.post("/v1/models", files=parts) for _ in range(2)]
    assert answers[0].status_code == 202, answers[0].text
    assert answers[0].json()["id"] == answers[1].json()["id"]
    with Client(service.url) as client:
        remote = client.model(answers[0].json()["id"])
        remote.wait()
        assert remote.info.counts["params"] == 900 and not remote.info.weightless
        target = tmp_path / "pruned.onnx"
        remote.download_onnx(remote.cut_analysis("self.b", [1], 0), target)
        assert [list(t.dims) for t in onnx.load(target).graph.initializer] == [[20, 29], [29, 10]]


@pytest.mark.parametrize(
    "parts",
    [
        [("files", ("../model.onnx", b"x"))],
        [("files", ("/model.onnx", b"x"))],
        [("files", ("a.onnx", b"x")), ("files", ("a.onnx", b"y"))],
        [("files", ("a.onnx", b"x")), ("file", ("b.onnx", b"y"))],
        [("file", ("a.onnx", b"x")), ("files", ("b.bin", b"y"))],
        [("file", ("a.onnx", b"x")), ("file", ("b.onnx", b"y"))],
        [("other", ("a.onnx", b"x"))],
    ],
)
def test_parts_that_make_no_model_are_refused(service: RunningService, parts: list[Any]) -> None:
    answer = service.client.post("/v1/models", files=parts)
    assert answer.status_code in (400, 422), answer.text
    assert "part" in answer.json()["detail"] or "filename" in answer.json()["detail"]


class Said(FrameWriter):
    """What a task says, kept."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def data(self, chunk: bytes | memoryview) -> None:
        self.chunks.append(bytes(chunk))

    def progress(self, stage: str, percent: float) -> None:
        assert stage in STAGES and 0 <= percent <= 100


def test_what_is_larger_than_one_file_is_made_in_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file holds 1 kB here, where it holds 2 GB elsewhere."""
    path = external(tmp_path)
    whole = unpacked(path)
    upload = tmp_path / "upload"
    upload.write_bytes(packed(path))
    graph = solve_onnx(whole)
    first = graph.cut_analysis("self.a", [0, 7], 1)
    second = graph.derive(first).cut_analysis("self.b", [3], 0)
    monkeypatch.setattr(external_data, "ONE_FILE", 1000)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(scratch)
    (tmp_path / "cuts").write_text(json.dumps([first.to_dict(), second.to_dict()]))
    args = {"path": str(upload), "format": "onnx", "inputs": [], "cuts": str(tmp_path / "cuts")}

    said = Said()
    outcome = tasks.onnx(args, said)
    assert [each["type"] for each in outcome["warnings"]] == ["several-files"]
    with zipfile.ZipFile(io.BytesIO(b"".join(said.chunks))) as archive:
        archive.extractall(tmp_path / "made")
    made = onnx.load(tmp_path / "made" / "model.onnx")
    expected = onnx.load_model_from_string(prune_onnx(prune_onnx(whole, first), second))
    assert made.graph.node == expected.graph.node
    for tensor, right in zip(made.graph.initializer, expected.graph.initializer, strict=True):
        np.testing.assert_array_equal(
            numpy_helper.to_array(tensor), numpy_helper.to_array(right), tensor.name
        )

    written = Said()
    assert tasks.weights({**args, "output": "safetensors"}, written) == {"tensors": 2}
    shapes = {name: value.shape for name, value in load(b"".join(written.chunks)).items()}
    assert shapes == {t.name: tuple(t.dims) for t in expected.graph.initializer}
    without = Said()
    assert tasks.attach(args, without)["size"] < 1000
