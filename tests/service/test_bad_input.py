"""Bad input: a clear answer within seconds, and nothing left behind."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
import torch

from tests.service.models import ModelFile, small_file, torchscript_of
from tests.service.running import RunningService


def refused(service: RunningService, content: bytes, *inputs: str) -> dict[str, Any]:
    answer = service.client.post("/v1/models", params={"input": list(inputs)}, content=content)
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status_code
    return problem


def state_dict_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, buffer)
    return buffer.getvalue()


def plain_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "slug"),
    [
        (b"", "invalid-model"),
        (b"hello, I am not a model", "invalid-model"),
        (b"\x80\x04\x95 a pickle", "unsupported-model"),
        (plain_zip(), "unsupported-model"),
        (state_dict_file(), "unsupported-model"),
        (b"PK\x03\x04 and then nothing", "damaged-archive"),
    ],
    ids=["empty", "text", "pickle", "zip", "state_dict", "zip head"],
)
def test_what_is_not_a_model_is_refused_at_once(
    service: RunningService, content: bytes, slug: str
) -> None:
    problem = refused(service, content, "x:1x3x8x8")
    assert (problem["status"], problem["type"]) == (422, slug)


def test_a_truncated_archive_is_refused(service: RunningService, torchscript: ModelFile) -> None:
    problem = refused(service, torchscript.content[: len(torchscript.content) // 2], "x:1x3x64x64")
    assert problem["type"] == "damaged-archive"
    assert "truncated" in problem["detail"]


def test_a_truncated_onnx_file_is_refused(service: RunningService, onnx_file: ModelFile) -> None:
    problem = refused(service, onnx_file.content[: len(onnx_file.content) // 2])
    assert problem["type"] == "invalid-model"


def test_torchscript_without_inputs_says_how_to_give_them(service: RunningService) -> None:
    problem = refused(service, small_file(1).content)
    assert problem["type"] == "inputs-required"
    assert "input=" in problem["detail"]


@pytest.mark.parametrize(
    "text", ["x:1x3xq", "x:1x3x8x8:floaty", "x:-1x3", "x:99999999999x1", "x:1x3x99999999x99999999"]
)
def test_inputs_that_do_not_read_or_cannot_be_are_refused(
    service: RunningService, text: str
) -> None:
    problem = refused(service, small_file(1).content, text)
    assert problem["status"] == 422
    assert problem["type"] in {"invalid-inputs", "input-too-large"}


def test_a_shape_that_does_not_fit_fails_with_a_reason(service: RunningService) -> None:
    shown = service.upload(small_file(2).content, "x:1x5x8x8")
    assert shown["state"] == "failed"
    assert shown["problem"]["type"] in {"export-failed", "invalid-inputs"}
    assert "channels" in shown["problem"]["detail"] or "shape" in shown["problem"]["detail"]


def test_an_unknown_input_name_fails_with_the_known_ones(service: RunningService) -> None:
    shown = service.upload(small_file(2).content, "image:1x3x8x8")
    assert shown["state"] == "failed"
    assert shown["problem"]["type"] == "invalid-inputs"
    assert "x" in shown["problem"]["detail"]


class Unexportable(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.lstsq(x, x).solution


def test_a_model_that_does_not_export_fails_and_is_not_tried_again(
    service: RunningService,
) -> None:
    content = torchscript_of(Unexportable(), torch.eye(3))
    shown = service.upload(content, "x:3x3")
    assert shown["state"] == "failed"
    assert shown["problem"]["type"] == "export-failed"
    again = service.client.post("/v1/models", params={"input": "x:3x3"}, content=content)
    assert again.json()["state"] == "failed"
    asked = service.client.post(
        f"/v1/models/{shown['id']}/cut-analysis", json={"node": "self.w", "index": [0]}
    )
    assert (asked.status_code, asked.json()["type"]) == (409, "model-failed")
    started = [line for line in service.log().splitlines() if '"job started"' in line]
    assert len([line for line in started if shown["id"] in line]) == 1


CUTS = [
    ({"node": "self.nope.weight", "index": [0]}, 404, "unknown-node"),
    ({"module": "self.conv1", "attribute": "nope", "index": [0]}, 404, "unknown-node"),
    ({"node": "self.conv1.weight", "index": []}, 422, "invalid-index"),
    ({"node": "self.conv1.weight", "index": [64]}, 422, "invalid-index"),
    ({"node": "self.conv1.weight", "index": [-1]}, 422, "invalid-index"),
    ({"node": "self.conv1.weight", "index": [1, 1]}, 422, "invalid-index"),
    ({"node": "self.conv1.weight", "index": [1.5]}, 422, "invalid-request"),
    ({"node": "self.conv1.weight", "index": "all"}, 422, "invalid-request"),
    ({"node": "self.conv1.weight", "index": [True]}, 422, "invalid-request"),
    ({"node": "self.conv1.weight", "index": [0], "dim": 4}, 422, "invalid-dim"),
    ({"node": "self.conv1.weight", "index": [0], "dim": -5}, 422, "invalid-dim"),
    ({"node": "self.conv1.weight", "index": list(range(64))}, 422, "empty-axis"),
    ({"node": "self.conv1.weight", "index": [10**30]}, 422, "invalid"),
    ({"node": "self.conv1.weight", "index": {"ranges": [[0, 10**12]]}}, 422, "invalid-index"),
    ({"node": "self.conv1.weight", "index": [0], "granularity": "fine"}, 422, "invalid-request"),
    ({"index": [0]}, 422, "invalid-request"),
    ({"node": "self.conv1.weight", "index": [0], "typo": 1}, 422, "invalid-request"),
    ({"cuts": []}, 422, "invalid-request"),
    ({"node": "x", "index": [0], "dim": 1, "protect_io": True}, 422, "protected-io"),
]


@pytest.mark.parametrize(("body", "status", "slug"), CUTS, ids=[str(c[0])[:60] for c in CUTS])
def test_a_cut_that_cannot_be_says_why(
    service: RunningService, model_id: str, body: dict[str, Any], status: int, slug: str
) -> None:
    answer = service.client.post(f"/v1/models/{model_id}/cut-analysis", json=body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.status_code == status, answer.text
    assert answer.json()["type"].startswith(slug)
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"node": "n", "index": [0], "granularity": "fine"}, "body.granularity: "),
        ({"node": "n", "index": [0], "dim": "0"}, "body.dim: "),
        ({"cuts": [{"node": "n", "index": [0]}], "granularity": "fine"}, "body.granularity: "),
    ],
)
def test_a_body_of_several_forms_is_judged_by_the_nearest(
    service: RunningService, model_id: str, body: dict[str, Any], detail: str
) -> None:
    answer = service.client.post(f"/v1/models/{model_id}/cut-analysis", json=body).json()
    assert answer["detail"].startswith(detail), answer
    assert len(answer["errors"]) == 1


def test_flops_are_listed_by_what_there_is(service: RunningService, model_id: str) -> None:
    answer = service.client.get(f"/v1/models/{model_id}/flops", params={"by": "layer"})
    assert answer.status_code == 422
    assert "module" in answer.json()["detail"]


def test_a_negative_dim_counts_from_the_end(service: RunningService, model_id: str) -> None:
    first = service.cut(model_id, "self.conv1.weight", [0], 0)
    assert service.cut(model_id, "self.conv1.weight", [0], -4) == first


def test_a_body_that_is_not_json_is_a_problem(service: RunningService, model_id: str) -> None:
    answer = service.client.post(
        f"/v1/models/{model_id}/cut-analysis",
        content=b"{not json",
        headers={"Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")


@pytest.mark.parametrize("path", ["/v1/models/nope", "/v1/models/" + "m" + "a" * 26, "/v1/nothing"])
def test_what_does_not_exist_is_a_404_problem(service: RunningService, path: str) -> None:
    answer = service.client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_result_of_another_model_is_refused_before_a_job_starts(
    service: RunningService, model_id: str
) -> None:
    small = small_file(3)
    other = service.upload(small.content, *small.inputs)["id"]
    result = service.cut(other, "self.conv1.weight", [0])
    result.pop("model")
    answer = service.client.post(f"/v1/models/{model_id}/pruned-weights", json={"result": result})
    assert (answer.status_code, answer.json()["type"]) == (409, "cut-mismatch")
