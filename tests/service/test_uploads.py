"""Uploads: every way in, hashed as they stream, the same bytes once."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import threading
import warnings
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load

from tests.service.models import ModelFile, small_file, torchscript_of
from tests.service.running import PATIENCE, RunningService, until


def digest_header(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def test_a_torchscript_file_becomes_a_ready_model(service: RunningService, model_id: str) -> None:
    shown = service.client.get(f"/v1/models/{model_id}").json()
    assert shown["state"] == "ready"
    assert shown["format"] == "torchscript"
    assert shown["counts"]["params"] == 11_689_512
    assert shown["inputs"] == [{"name": "x", "shape": [1, 3, 64, 64], "dtype": "float32"}]
    assert shown["outputs"][0]["shape"] == [1, 1000]


def test_an_upload_answers_202_with_a_location(service: RunningService) -> None:
    answer = service.client.post(
        "/v1/models", params={"input": "x:1x3x8x8"}, content=small_file(101).content
    )
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/models/{answer.json()['id']}"
    assert service.wait_model(answer.json()["id"])["state"] == "ready"


def test_an_onnx_file_brings_its_own_shapes(service: RunningService, onnx_file: ModelFile) -> None:
    shown = service.upload(onnx_file.content)
    assert (shown["state"], shown["format"], shown["weightless"]) == ("ready", "onnx", False)
    names = [
        m["name"] for m in service.client.get(f"/v1/models/{shown['id']}/modules").json()["items"]
    ]
    assert "self.layer1.0.conv1" in names


def test_a_multipart_form_works_like_a_raw_body(service: RunningService) -> None:
    file = small_file(102)
    answer = service.client.post(
        "/v1/models",
        files={"file": ("m.pt", file.content, "application/octet-stream")},
        data={"inputs": '[{"name": "x", "shape": [1, 3, 8, 8]}]', "name": "from a form"},
    )
    assert answer.status_code == 202, answer.text
    assert answer.json()["blob"] == hashlib.sha256(file.content).hexdigest()
    shown = service.wait_model(answer.json()["id"])
    assert (shown["state"], shown["name"]) == ("ready", "from a form")


def test_inputs_as_json_and_in_short_are_the_same_model(service: RunningService) -> None:
    file = small_file(103)
    first = service.upload(file.content, "x:1x3x8x8:float32")
    second = service.client.post(
        "/v1/models",
        params={"inputs": '[{"name":"x","shape":[1,3,8,8],"dtype":"float32"}]'},
        content=file.content,
    )
    assert second.status_code == 200
    assert second.json()["id"] == first["id"]


def test_other_inputs_are_another_model(service: RunningService) -> None:
    file = small_file(103)
    first = service.upload(file.content, "x:1x3x8x8")
    second = service.upload(file.content, "x:2x3x8x8")
    assert first["id"] != second["id"]
    assert second["inputs"][0]["shape"] == [2, 3, 8, 8]


def test_a_content_digest_is_checked(service: RunningService) -> None:
    content = small_file(104).content
    right = service.client.post(
        "/v1/models",
        params={"input": "x:1x3x8x8"},
        content=content,
        headers={"Content-Digest": digest_header(content)},
    )
    assert right.status_code == 202
    wrong = service.client.post(
        "/v1/models",
        params={"input": "x:1x3x8x8"},
        content=content,
        headers={"Content-Digest": digest_header(b"something else")},
    )
    assert (wrong.status_code, wrong.json()["type"]) == (422, "digest-mismatch")


def test_a_known_file_costs_one_small_request(service: RunningService) -> None:
    file = small_file(105)
    digest = hashlib.sha256(file.content).hexdigest()
    body = {"blob": digest, "inputs": [{"name": "x", "shape": [1, 3, 8, 8]}]}
    assert service.client.head(f"/v1/blobs/{digest}").status_code == 404
    unknown = service.client.post("/v1/models", json=body)
    assert (unknown.status_code, unknown.json()["type"]) == (404, "unknown-blob")
    model = service.upload(file.content, *file.inputs)["id"]
    known = service.client.head(f"/v1/blobs/{digest}")
    assert known.status_code == 200
    assert int(known.headers["torchpruner-blob-length"]) == len(file.content)
    again = service.client.post("/v1/models", json=body)
    assert (again.status_code, again.json()["id"]) == (200, model)


def test_the_same_file_twice_at_once_is_built_once(service: RunningService) -> None:
    file = small_file(106)
    answers = []

    def send() -> None:
        answers.append(
            service.client.post("/v1/models", params={"input": "x:1x3x8x8"}, content=file.content)
        )

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (model,) = {answer.json()["id"] for answer in answers}
    assert service.wait_model(model)["state"] == "ready"
    started = [
        line for line in service.log().splitlines() if '"job started"' in line and model in line
    ]
    assert len(started) == 1
    assert len(list((service.store / "blobs").rglob(hashlib.sha256(file.content).hexdigest()))) == 1


def test_nothing_stays_in_the_staging_folder(service: RunningService, model_id: str) -> None:
    service.client.post("/v1/models", content=b"not a model")
    left = [path.name for path in (service.data_dir / "scratch").iterdir()]
    assert not [name for name in left if name.startswith("upload-")]


def test_a_removed_model_is_gone_and_can_be_uploaded_again(service: RunningService) -> None:
    file = small_file(107)
    model = service.upload(file.content, *file.inputs)["id"]
    assert service.client.delete(f"/v1/models/{model}").status_code == 204
    assert service.client.get(f"/v1/models/{model}").status_code == 404
    assert (
        service.client.post(
            f"/v1/models/{model}/cut-analysis", json={"node": "self.conv1.weight", "index": [0]}
        ).status_code
        == 404
    )
    assert service.upload(file.content, *file.inputs)["id"] == model


@pytest.mark.parametrize("part", [1000, 7001])
def test_a_resumable_upload_goes_on_where_it_broke(service: RunningService, part: int) -> None:
    file = small_file(108 + part)
    digest = hashlib.sha256(file.content).hexdigest()
    started = service.client.post(
        "/v1/uploads", json={"length": len(file.content), "sha256": digest}
    )
    assert started.status_code == 201
    path = started.headers["location"]
    send = service.client.patch(path, content=file.content[:part], headers={"Upload-Offset": "0"})
    assert send.json()["offset"] == part
    wrong = service.client.patch(path, content=b"abc", headers={"Upload-Offset": "0"})
    assert (wrong.status_code, wrong.json()["expected"]) == (409, part)
    early = service.client.post("/v1/models", json={"upload": started.json()["id"]})
    assert (early.status_code, early.json()["type"]) == (409, "upload-incomplete")
    offset = int(service.client.head(path).headers["upload-offset"])
    rest = service.client.patch(
        path, content=file.content[offset:], headers={"Upload-Offset": str(offset)}
    )
    assert rest.json()["complete"]
    made = service.client.post(
        "/v1/models",
        json={"upload": started.json()["id"], "inputs": [{"name": "x", "shape": [1, 3, 8, 8]}]},
    )
    assert made.status_code == 202
    assert made.json()["blob"] == digest
    assert service.wait_model(made.json()["id"])["state"] == "ready"


class SlowPatch:
    """A PATCH that is let in at its offset, and whose body comes in pieces, with time for others in
    between."""

    def __init__(self, service: RunningService, path: str, offset: int, length: int) -> None:
        scratch = service.data_dir / "scratch"
        before = set(scratch.glob("upload-*"))
        address = httpx.URL(service.url)
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=PATIENCE)
        self._connection.putrequest("PATCH", path)
        self._connection.putheader("Upload-Offset", str(offset))
        self._connection.putheader("Content-Length", str(length))
        self._connection.endheaders()
        # Its offset is compared before there is a file for its bytes.
        until(lambda: set(scratch.glob("upload-*")) - before)

    def send(self, content: bytes) -> None:
        self._connection.send(content)

    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._connection.getresponse().read())
        self._connection.close()
        return found


@pytest.mark.parametrize("late", [4, 9, 12])
def test_a_late_part_never_takes_back_what_was_acknowledged(
    service: RunningService, late: int
) -> None:
    content = bytes(range(20))
    digest = hashlib.sha256(content).hexdigest()
    started = service.client.post("/v1/uploads", json={"length": 20, "sha256": digest})
    path = started.headers["location"]
    stale = SlowPatch(service, path, 0, late)
    stale.send(content[:1])
    offset = 0
    for part in (content[:6], content[6:10]):
        headers = {"Upload-Offset": str(offset)}
        offset = service.client.patch(path, content=part, headers=headers).json()["offset"]
    assert offset == 10
    stale.send(content[1:late])
    assert stale.answer()["offset"] == max(10, late)
    told = int(service.client.head(path).headers["upload-offset"])
    assert told == max(10, late)
    headers = {"Upload-Offset": str(told)}
    done = service.client.patch(path, content=content[told:], headers=headers).json()
    assert (done["complete"], done["sha256"]) == (True, digest)


def test_the_last_part_twice_at_once_ends_the_upload_once(service: RunningService) -> None:
    content = b"0123456789" * 1000
    digest = hashlib.sha256(content).hexdigest()
    path = service.client.post("/v1/uploads", json={"length": len(content)}).headers["location"]
    both = [SlowPatch(service, path, 0, len(content)) for _ in range(2)]
    for patch in both:
        patch.send(content[:-1])
    for patch in both:
        patch.send(content[-1:])
    for patch in both:
        told = patch.answer()
        assert told["complete"] or told["type"] == "offset-mismatch", told
    assert service.client.get(path).json()["sha256"] == digest
    assert service.client.head(f"/v1/blobs/{digest}").status_code == 200


def test_parts_that_nobody_lived_to_join_are_joined_when_the_upload_is_used(
    service: RunningService,
) -> None:
    file = small_file(8317)
    started = service.client.post("/v1/uploads", json={"length": len(file.content)})
    path, identifier = started.headers["location"], started.json()["id"]
    first = service.client.patch(path, content=file.content[:100], headers={"Upload-Offset": "0"})
    assert first.json()["offset"] == 100
    # As after the death of a process between the last part and the blob.
    (parts,) = service.store.rglob(f"{identifier}/parts")
    rest = file.content[100:]
    (parts / f"{100:020d}-{len(rest):020d}-0123456789abcdef").write_bytes(rest)
    assert service.client.head(path).headers["upload-offset"] == str(len(file.content))
    made = service.client.post(
        "/v1/models",
        json={"upload": identifier, "inputs": [{"name": "x", "shape": [1, 3, 8, 8]}]},
    )
    assert made.status_code == 202, made.text
    assert made.json()["blob"] == hashlib.sha256(file.content).hexdigest()
    assert service.client.get(path).json()["complete"]
    assert not list(parts.glob("*"))


def test_a_resumable_upload_with_wrong_bytes_is_refused(service: RunningService) -> None:
    started = service.client.post("/v1/uploads", json={"length": 4, "sha256": "0" * 64})
    path = started.headers["location"]
    answer = service.client.patch(path, content=b"abcd", headers={"Upload-Offset": "0"})
    assert (answer.status_code, answer.json()["type"]) == (422, "digest-mismatch")
    assert service.client.get(path).status_code == 404


def test_models_are_listed_in_pages(service: RunningService, model_id: str) -> None:
    for seed in (120, 121):
        service.upload(small_file(seed).content, "x:1x3x8x8", params={"name": f"small {seed}"})
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = service.client.get("/v1/models", params=params).json()
        assert len(page["items"]) <= 2
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert len(seen) == page["total"] == len(set(seen))
    assert model_id in seen


class Two(torch.nn.Module):
    """Two inputs, the second optional."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(10, 6)
        self.linear = torch.nn.Linear(6, 5)

    def forward(self, ids: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        hidden = self.linear(self.embed(ids))
        return hidden if scale is None else hidden * scale


def test_several_and_optional_inputs_of_other_dtypes(service: RunningService) -> None:
    module = Two().eval()
    ids, scale = torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, 5)
    both = torchscript_of(module, (ids, scale))
    shown = service.upload(both, "ids:2x3:int64", "scale:2x3x5:float32")
    assert shown["state"] == "ready", shown
    assert [item["name"] for item in shown["inputs"]] == ["ids", "scale"]
    one = service.upload(torchscript_of(module, ids), "ids:2x3:int64")
    assert one["state"] == "ready", one
    assert service.cut(one["id"], "self.linear.weight", [0], 1)["terminal"]


def test_dynamic_dimensions_of_an_onnx_file_are_given_a_value(service: RunningService) -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval(),
            (torch.zeros(1, 3, 16, 16),),
            buffer,
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "batch", 2: "height", 3: "width"}},
        )
    shown = service.upload(buffer.getvalue(), "x:4x3x32x20")
    assert shown["state"] == "ready", shown
    assert shown["outputs"][0]["shape"] == [4, 8, 30, 18]
    open_ended = service.upload(buffer.getvalue())
    assert open_ended["state"] == "failed"
    assert open_ended["problem"]["type"] == "invalid-inputs"
    misfit = service.upload(buffer.getvalue(), "x:4x5x32x20")
    assert misfit["state"] == "failed" and misfit["problem"]["type"] == "invalid-inputs"


def test_a_torch_export_archive_goes_the_whole_path(service: RunningService) -> None:
    module = small_file(130).module
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 3, 8, 8),)), buffer)
    shown = service.upload(buffer.getvalue())
    assert (shown["state"], shown["format"]) == ("ready", "pt2"), shown
    cut = service.cut(shown["id"], "self.conv1.weight", [0])
    cut.pop("model")
    made = service.artifact(shown["id"], "pruned-weights", result=cut)
    assert made["state"] == "ready", made
    state = load(service.client.get(made["content"]).content)
    assert set(state) == set(module.state_dict())
    assert state["conv1.weight"].shape[0] == 7
