"""Names, ids and keys in bodies and headers: what no person writes is refused, and two at once make one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.service.models import small_file
from tests.service.running import RunningService


@pytest.fixture(scope="module")
def model(target: RunningService) -> str:
    file = small_file(1901, 16)
    return str(target.upload(file.content, *file.inputs)["id"])


def test_ids_in_a_body_are_no_paths(target: RunningService, model: str) -> None:
    bad = ["../../x", "a\x00b", "%2e%2e", model[:-1], f"{model}\n", f"{model}/../{model}", "é"]
    answer = target.client.post("/v1/models/bulk-delete", json={"models": bad})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [each["id"] for each in results] == bad
    assert {each["problem"]["type"] for each in results} == {"unknown-model"}
    assert target.client.get(f"/v1/models/{model}").status_code == 200
    twice = target.client.post("/v1/models/bulk-delete", json={"models": ["x"] * 1001})
    assert twice.status_code == 422


@pytest.mark.parametrize("name", ["", " ", "a\x00b", "two\nlines", "\x1b[2J", "n" * 201])
@pytest.mark.parametrize("route", ["plans", "cuts", "derive"])
def test_names_are_one_line_of_text(
    target: RunningService, model: str, route: str, name: str
) -> None:
    cut = {"node": "self.conv1.weight", "index": [0]}
    bodies: dict[str, Any] = {
        "plans": {"budget": {"flops": "50%"}},
        "cuts": {"request": {"cuts": [cut]}},
        "derive": {"result": {"terminal": {"self.conv1.weight": [[0], None, None, None]}}},
    }
    answer = target.client.post(f"/v1/models/{model}/{route}", json={**bodies[route], "name": name})
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")
    assert "body.name" in answer.json()["detail"]


def test_one_name_and_one_key_have_one_meaning_whoever_is_first(
    target: RunningService, model: str
) -> None:
    def save(index: int) -> int:
        request = {"cuts": [{"node": "self.conv1.weight", "index": [index]}]}
        body = {"name": "one", "request": request}
        return target.client.post(f"/v1/models/{model}/cuts", json=body).status_code

    def plan(index: int) -> int:
        return target.client.post(
            f"/v1/models/{model}/plans",
            json={"budget": {"params": f"{50 + index}%"}},
            headers={"Idempotency-Key": "one"},
        ).status_code

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(save, range(6))) == [201] + [409] * 5
        answers = sorted(pool.map(plan, range(6)))
    assert answers[0] in (200, 202) and answers[1:] == [422] * 5


def test_true_is_no_amount(target: RunningService, model: str) -> None:
    answer = target.client.post(f"/v1/models/{model}/plans", json={"budget": {"flops": True}})
    assert answer.status_code == 422 and "budget.flops" in answer.json()["detail"]
