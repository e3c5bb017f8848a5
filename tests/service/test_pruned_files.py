"""Pruned weights and pruned ONNX: made once, whole, and downloaded like any file."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load

from tests.service.models import ModelFile, torchscript_of
from tests.service.running import RunningService
from torchpruner_core.cut_result import CutResult
from torchpruner_core.pruning import set_cut


@pytest.fixture(scope="module")
def result(service: RunningService, model_id: str) -> dict[str, object]:
    answer = service.cut(model_id, "self.layer1.0.conv2.weight", [0, 1])
    answer.pop("model")
    return answer


def content(service: RunningService, artifact: dict[str, str]) -> bytes:
    answer = service.client.get(artifact["content"])
    assert answer.status_code == 200
    return answer.content


def test_pruned_weights_load_strictly_into_the_pruned_model(
    service: RunningService, model_id: str, torchscript: ModelFile, result: dict[str, object]
) -> None:
    artifact = service.artifact(model_id, "pruned-weights", result=result)
    assert artifact["state"] == "ready", artifact
    state = load(content(service, artifact))
    assert set(state) == set(torchscript.module.state_dict())
    pruned, _ = set_cut(torchscript.module, CutResult.from_dict(result))
    expected = {name: value.clone() for name, value in pruned.state_dict().items()}
    pruned.load_state_dict(state, strict=True)
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


def test_the_npz_holds_the_same(
    service: RunningService, model_id: str, result: dict[str, object]
) -> None:
    artifact = service.artifact(model_id, "pruned-weights", result=result, format="npz")
    arrays = np.load(io.BytesIO(content(service, artifact)))
    state = load(content(service, service.artifact(model_id, "pruned-weights", result=result)))
    assert set(arrays.files) == set(state)
    assert all(np.array_equal(arrays[name], state[name].numpy()) for name in arrays.files)


def test_the_pruned_onnx_runs_and_equals_the_pruned_module(
    service: RunningService, model_id: str, result: dict[str, object]
) -> None:
    artifact = service.artifact(model_id, "pruned-onnx", result=result)
    assert artifact["state"] == "ready", artifact
    session = onnxruntime.InferenceSession(
        content(service, artifact), providers=["CPUExecutionProvider"]
    )
    from tests.service.models import torchvision_model

    module, _ = torchvision_model("resnet18")
    pruned, _ = set_cut(module, CutResult.from_dict(result))
    x = torch.randn(1, 3, 64, 64)
    (received,) = session.run(None, {"x": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(received, pruned(x).numpy(), rtol=1e-3, atol=1e-4)


def test_without_a_result_the_whole_state_comes(service: RunningService, model_id: str) -> None:
    artifact = service.artifact(model_id, "pruned-weights")
    from tests.service.models import torchvision_model

    module, _ = torchvision_model("resnet18")
    state = load(content(service, artifact))
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())


def test_the_same_request_is_the_same_file_and_no_second_job(
    service: RunningService, model_id: str, result: dict[str, object]
) -> None:
    first = service.artifact(model_id, "pruned-weights", result=result)
    again = service.client.post(f"/v1/models/{model_id}/pruned-weights", json={"result": result})
    assert again.status_code == 200
    assert again.json() == first
    started = [line for line in service.log().splitlines() if '"job started"' in line]
    assert len([line for line in started if first["job"] in line]) == 1


def test_downloads_have_etag_ranges_and_conditions(
    service: RunningService, model_id: str, result: dict[str, object]
) -> None:
    artifact = service.artifact(model_id, "pruned-weights", result=result)
    path, client = artifact["content"], service.client
    whole = client.get(path)
    etag = whole.headers["etag"]
    assert etag == f'"{hashlib.sha256(whole.content).hexdigest()}"'
    head = client.head(path)
    assert int(head.headers["content-length"]) == len(whole.content) and not head.content
    part = client.get(path, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == whole.content[100:200]
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
    tail = client.get(path, headers={"Range": "bytes=-50"})
    assert tail.content == whole.content[-50:]
    rest = client.get(path, headers={"Range": "bytes=1000-", "If-Range": etag})
    assert rest.status_code == 206 and rest.content == whole.content[1000:]
    changed = client.get(path, headers={"Range": "bytes=1000-", "If-Range": '"other"'})
    assert changed.status_code == 200 and changed.content == whole.content
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304
    assert client.get(path, headers={"If-Match": '"other"'}).status_code == 412
    outside = client.get(path, headers={"Range": f"bytes={len(whole.content)}-"})
    assert outside.status_code == 416
    assert outside.headers["content-range"] == f"bytes */{len(whole.content)}"


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(20, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.head = torch.nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.embed(ids)))


def test_tied_weights_are_cut_under_both_names(service: RunningService) -> None:
    module = Tied().eval()
    file = torchscript_of(module, torch.zeros(1, 4, dtype=torch.int64))
    model = service.upload(file, "ids:1x4:int64")
    assert model["state"] == "ready", model
    cut = service.cut(model["id"], "self.norm.weight", [0, 3])
    cut.pop("model")
    artifact = service.artifact(model["id"], "pruned-weights", result=cut)
    assert artifact["state"] == "ready", artifact
    state = load(content(service, artifact))
    assert set(state) == set(module.state_dict())
    assert state["embed.weight"].shape == state["head.weight"].shape == (20, 6)
