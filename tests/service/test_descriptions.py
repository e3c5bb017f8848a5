"""Names, notes and tags of models; several removed at once; what was measured is found again."""

from __future__ import annotations

import asyncio
import csv
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.service.models import small_file
from tests.service.running import RunningService
from torchpruner_client import AsyncClient, ChangedMeanwhile, Client, NotFoundError


@pytest.fixture(scope="module")
def shown(service: RunningService) -> dict[str, Any]:
    file = small_file(901)
    return service.upload(file.content, *file.inputs, params={"name": "first name"})


def patch(service: RunningService, model: str, body: Any, **headers: str) -> Any:
    return service.client.patch(f"/v1/models/{model}", json=body, headers=headers)


def test_only_what_is_given_changes(service: RunningService, shown: dict[str, Any]) -> None:
    model = shown["id"]
    changed = patch(service, model, {"note": "line one\nline two", "tags": ["b", "a", " b "]})
    assert changed.status_code == 200, changed.text
    seen = service.client.get(f"/v1/models/{model}").json()
    assert (seen["name"], seen["tags"]) == ("first name", ["b", "a"])
    assert seen["note"] == "line one\nline two"
    assert patch(service, model, {"name": "second"}).json()["tags"] == ["b", "a"]
    # Uploading the same bytes again keeps them too, and its name counts.
    file = small_file(901)
    again = service.upload(file.content, *file.inputs, params={"name": "third"})
    assert (again["name"], again["note"], again["tags"]) == ("third", seen["note"], ["b", "a"])
    assert patch(service, model, {"name": None, "note": None, "tags": []}).json()["note"] is None


def test_a_change_can_be_made_conditional(service: RunningService, shown: dict[str, Any]) -> None:
    model = shown["id"]
    tag = service.client.get(f"/v1/models/{model}").headers["etag"]
    first = patch(service, model, {"name": "mine"}, **{"If-Match": tag})
    assert first.status_code == 200 and first.headers["etag"] != tag
    late = patch(service, model, {"name": "theirs"}, **{"If-Match": tag})
    assert (late.status_code, late.json()["type"]) == (412, "changed-meanwhile")
    assert late.json()["revision"] == first.json()["revision"]
    assert service.client.get(f"/v1/models/{model}").json()["name"] == "mine"
    assert patch(service, model, {"name": "any"}, **{"If-Match": "*"}).status_code == 200


def test_changes_at_the_same_time_are_all_kept(
    service: RunningService, shown: dict[str, Any]
) -> None:
    model = shown["id"]
    bodies = [{"name": "together"}, {"note": "together"}, {"tags": ["together"]}] * 4
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda body: patch(service, model, body), bodies))
    assert [answer.status_code for answer in answers] == [200] * 12
    seen = service.client.get(f"/v1/models/{model}").json()
    assert (seen["name"], seen["note"], seen["tags"]) == ("together", "together", ["together"])
    # Of those who all read the same, one is the first.
    tag = seen["revision"]
    with ThreadPoolExecutor(6) as pool:
        raced = list(
            pool.map(
                lambda n: patch(service, model, {"note": f"n{n}"}, **{"If-Match": f'"{tag}"'}),
                range(6),
            )
        )
    assert sorted(answer.status_code for answer in raced) == [200] + [412] * 5


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "   "},
        {"name": "a" * 201},
        {"name": "two\nlines"},
        {"name": "nul\x00"},
        {"note": "nul\x00"},
        {"note": "n" * 10_001},
        {"tags": ["t"] * 51},
        {"tags": [""]},
        {"tags": ["t" * 65]},
        {"tags": ["\ud800"]},
        {"tags": None},
        {"owner": "me"},
    ],
)
def test_what_is_no_description_is_refused_and_changes_nothing(
    service: RunningService, shown: dict[str, Any], body: dict[str, Any]
) -> None:
    before = service.client.get(f"/v1/models/{shown['id']}").json()["revision"]
    import json

    content = json.dumps(body)  # httpx would refuse to write a lone surrogate
    answer = service.client.patch(
        f"/v1/models/{shown['id']}",
        content=content,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422, answer.text
    assert service.client.get(f"/v1/models/{shown['id']}").json()["revision"] == before


def test_models_are_found_by_tag_and_name_and_removed_together(service: RunningService) -> None:
    with Client(service.url, progress=False) as client:
        models = []
        for number in range(3):
            file = small_file(910 + number)
            models.append(service.upload(file.content, *file.inputs)["id"])
            client.model(models[-1]).describe(name=f"Größe {number}", tags=["filter", f"n{number}"])
        assert [each.id for each in client.models(tags=["filter"])] == models[::-1]
        assert [each.id for each in client.models(name="GRÖSSE 1", tags=["filter"])] == [models[1]]
        assert client.models(tags=["filter", "n2"])[0].name == "Größe 2"
        assert client.models(tags=["filter", "other"]) == []
        page, cursor = client.models_page(2, tags=["filter"])
        rest, end = client.models_page(2, cursor, tags=["filter"])
        assert [each.id for each in (*page, *rest)] == models[::-1] and end is None

        absent = "m" + "a" * 26
        found = client.delete_models([models[0], absent, "nonsense", models[2], models[0]])
        assert [(each.id, each.removed) for each in found] == [
            (models[0], True), (absent, False), ("nonsense", False), (models[2], True),
        ]  # fmt: skip
        assert found[1].problem is not None and found[1].problem["type"] == "unknown-model"
        assert [each.id for each in client.models(tags=["filter"])] == [models[1]]
        # What comes back is new: nothing that was written about it has stayed.
        file = small_file(910)
        assert service.upload(file.content, *file.inputs)["tags"] == []


def test_the_client_says_who_was_faster(service: RunningService, shown: dict[str, Any]) -> None:
    with Client(service.url, progress=False) as client:
        one, other = client.model(shown["id"]), client.model(shown["id"])
        assert one.rename("faster").name == "faster"
        with pytest.raises(ChangedMeanwhile, match="since you read them"):
            other.describe(note="slower", revision=other.info.revision)
        assert other.refresh().note != "slower"
        other.describe(note="slower", revision=other.info.revision)
        assert client.model("faster").info.note == "slower"

    async def asynchronously() -> Any:
        async with AsyncClient(service.url, progress=False) as aclient:
            return await (await aclient.model(shown["id"])).describe(tags=("x",))

    assert asyncio.run(asynchronously()).tags == ("x",)


def test_what_was_measured_is_found_again(service: RunningService, shown: dict[str, Any]) -> None:
    model = shown["id"]
    with Client(service.url, progress=False) as client:
        remote = client.model(model)
        assert remote.latencies() == []
        cut = remote.cut_analysis("self.conv1.weight", [0, 1])
        remote.latency(runs=3, warm_up=1)
        remote.latency(cut, runs=5, warm_up=1)
        asked = service.client.post(f"/v1/models/{model}/plans", json={"budget": {"flops": "60%"}})
        plan = service.wait_job(asked.headers["location"])
        timed = service.client.post(f"/v1/plans/{plan['id']}/latency", json={"runs": 2})
        assert service.wait_job(timed.headers["location"])["state"] == "ready"

        of_plan, of_cut, alone = remote.latencies()
        assert (alone.cut, alone.plan, alone.runs) == (None, None, 3)
        assert of_plan.plan == plan["id"] and of_plan.cut is not None
        assert of_cut.cut is not None and of_cut.cut["flops_after"] == cut.flops_after
        for timing in (of_cut.original, of_cut.pruned):
            assert timing["min_ms"] <= timing["p10_ms"] <= timing["median_ms"] <= timing["p90_ms"]
            assert 0 <= timing["mad_ms"] <= timing["p95_ms"]
        assert of_cut.runtime.startswith("onnxruntime ") and of_cut.device
        assert of_cut.load["cpus"] >= 1 and of_cut.load["before"] >= 0
        assert of_cut.inputs[0].shape == (1, 3, 8, 8)
        assert of_cut.measured_at >= alone.measured_at

        # They go with the model.
        remote.delete()
        with pytest.raises(NotFoundError):
            remote.latencies()
        file = small_file(901)
        service.upload(file.content, *file.inputs)
        assert remote.latencies() == []


def test_lists_are_csv_where_that_is_asked_for(
    service: RunningService, shown: dict[str, Any]
) -> None:
    file = small_file(901)
    model = service.upload(file.content, *file.inputs)["id"]
    patch(service, model, {"name": '=1+1,"x"\u00e9', "note": "two\nlines", "tags": ["csv", "b"]})

    def rows(path: str, **asked: Any) -> list[dict[str, str]]:
        answer = service.client.get(path, **asked)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        return list(csv.DictReader(io.StringIO(answer.text)))

    (row,) = rows("/v1/models", params={"tag": "csv", "format": "csv"})
    assert (row["id"], row["name"], row["note"]) == (model, '\'=1+1,"x"\u00e9', "two\nlines")
    assert row["tags"] == "csv b" and int(row["counts.params"]) > 0 and "T" in row["created_at"]
    modules = rows(f"/v1/models/{model}/modules", headers={"Accept": "text/csv"})
    listed = service.client.get(f"/v1/models/{model}/modules", params={"limit": 1}).json()
    assert len(modules) == listed["total"] and "self.conv1" in [each["name"] for each in modules]
    with Client(service.url, progress=False) as client:
        client.model(model).latency(runs=2, warm_up=1)
    (timed,) = rows(f"/v1/models/{model}/latencies", headers={"Accept": "text/csv, */*;q=0.1"})
    assert float(timed["models.pruned.median_ms"]) > 0 and timed["cut.fingerprint"] == ""
    assert service.client.get("/v1/models", params={"format": "xml"}).status_code == 422
    browser = {"Accept": "application/json, text/csv"}
    assert service.client.get("/v1/models", headers=browser).json()["items"]
