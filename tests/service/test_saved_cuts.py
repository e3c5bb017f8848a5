"""Cuts and plans have names; what is asked, and what it removes, is found again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service.models import small_file
from tests.service.running import RunningService
from torchpruner_client import Client, ConflictError, NotFoundError


@pytest.fixture(scope="module")
def model(service: RunningService) -> str:
    file = small_file(921, 16)
    return str(service.upload(file.content, *file.inputs)["id"])


def save(service: RunningService, model: str, **body: Any) -> Any:
    return service.client.post(f"/v1/models/{model}/cuts", json=body)


def test_a_cut_is_saved_listed_shown_used_and_forgotten(
    service: RunningService, model: str
) -> None:
    with Client(service.url, progress=False) as client:
        remote = client.model(model)
        result = remote.cut_analysis("self.conv1.weight", [0, 1, 2])
        saved = remote.save_cut(
            "three", result, requests=[("self.conv1.weight", 0, [0, 1, 2])], note="why"
        )
        assert (saved.name, saved.note, saved.flops_after) == ("three", "why", result.flops_after)
        other = remote.save_cut("asked", requests=[("self.conv1.weight", 0, [5])])
        assert [each.name for each in remote.saved_cuts()] == ["asked", "three"]
        assert remote.saved_cut("three") == result == remote.saved_cut(saved.id)
        shown = service.client.get(f"/v1/cuts/{saved.id}").json()
        assert shown["request"]["cuts"][0]["node"] == "self.conv1.weight"
        listed = service.client.get(f"/v1/models/{model}/cuts", params={"limit": 1}).json()
        assert listed["total"] == 2 and "result" not in listed["items"][0] and listed["next"]
        assert remote.derive(remote.saved_cut("three")).info.counts["flops"] == saved.flops_after
        # The same again is the same; the name for another cut is taken.
        assert save(service, model, name="three", result=shown["result"]).status_code == 200
        with pytest.raises(ConflictError, match="another cut of this model is called"):
            remote.save_cut("three", requests=[("self.conv1.weight", 0, [7])])
        remote.delete_cut("three")
        remote.delete_cut(other.id)
        assert remote.saved_cuts() == []
        with pytest.raises(NotFoundError, match="is called 'three'"):
            remote.saved_cut("three")


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"name": "x"}, 422, "invalid-request"),
        ({"name": "", "request": {"cuts": [{"node": "n", "index": [0]}]}}, 422, "invalid-request"),
        ({"name": "x", "request": {"cuts": [{"node": "n", "index": [0]}]}}, 404, "unknown-node"),
        (
            {"name": "x", "result": {"terminal": {"self.conv1.weight": [[0], None, None, None]}}},
            409,
            "cut-mismatch",
        ),
    ],
)
def test_what_is_no_cut_of_the_model_is_not_saved(
    service: RunningService, model: str, body: dict[str, Any], status: int, slug: str
) -> None:
    answer = save(service, model, **body)
    assert (answer.status_code, answer.json()["type"]) == (status, slug)
    assert service.client.get(f"/v1/models/{model}/cuts").json()["total"] == 0


def test_a_result_must_answer_the_request_beside_it(service: RunningService, model: str) -> None:
    result = service.cut(model, "self.conv1.weight", [0])
    result.pop("model")
    request = {"cuts": [{"node": "self.conv1.weight", "index": [1]}]}
    answer = save(service, model, name="x", result=result, request=request)
    assert (answer.status_code, answer.json()["type"]) == (409, "cut-mismatch")
    assert "not the answer to the request" in answer.json()["detail"]


def test_saved_cuts_go_with_their_model(service: RunningService) -> None:
    file = small_file(922)
    with Client(service.url, progress=False) as client:
        remote = client.model(service.upload(file.content, *file.inputs)["id"])
        saved = remote.save_cut("gone", requests=[("self.conv1.weight", 0, [0])])
        remote.delete()
        assert service.client.get(f"/v1/cuts/{saved.id}").status_code == 404
        service.upload(file.content, *file.inputs)
        assert remote.saved_cuts() == []
        assert service.client.get(f"/v1/cuts/{saved.id}").status_code == 404


def test_a_plan_gets_another_name(service: RunningService, model: str) -> None:
    asked = service.client.post(f"/v1/models/{model}/plans", json={"budget": {"params": "80%"}})
    plan = service.wait_job(asked.headers["location"])["id"]
    with Client(service.url, progress=False) as client:
        remote = client.model(model)
        assert remote.rename_plan(plan, "eighty").name == "eighty"
        assert [each.name for each in remote.plans()] == ["eighty"]
        assert remote.rename_plan(plan, None).name is None
        remote.delete_plan(plan)
        with pytest.raises(NotFoundError):
            remote.rename_plan(plan, "late")
