"""Who did what, when: whatever changes something leaves an event, and no secret."""

from __future__ import annotations

import importlib
import json
import pkgutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.models import small_file
from tests.service.running import RunningService, running_service
from tests.service.test_access import caller, keys
from torchpruner_client import Client
from torchpruner_service.api import routers
from torchpruner_service.api.audit_trail import ACTIONS, Recorded
from torchpruner_service.storage import layout
from torchpruner_service.storage.audit_log import event_name, happened_at, page_of_events, trim_all
from torchpruner_service.storage.objects import Objects

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def guarded() -> Iterator[RunningService]:
    with running_service(TORCHPRUNER_AUTH="on") as running:
        yield running


def test_every_route_that_changes_something_is_recorded() -> None:
    changing = [
        route
        for each in pkgutil.iter_modules(routers.__path__, f"{routers.__name__}.")
        for route in importlib.import_module(each.name).router.routes
        if route.methods - {"GET", "HEAD", "OPTIONS"}
    ]
    document = json.loads((ROOT / "service" / "openapi.json").read_text())
    told = [m for path in document["paths"].values() for m in path if m not in ("get", "head")]
    assert len(changing) == len(told) > 20
    assert {route.name for route in changing} == set(ACTIONS)
    assert all(isinstance(route, Recorded) for route in changing)


def test_what_was_done_is_told_to_its_tenant_alone_without_secrets(
    guarded: RunningService,
) -> None:
    text = keys(guarded, "create", "--tenant", "one")
    secret = text.rpartition("_")[2]
    owner, foreign = (
        caller(guarded, text),
        caller(guarded, keys(guarded, "create", "--tenant", "two")),
    )
    file = small_file(931)
    headers = {
        "Torchpruner-Webhook": "https://hooks.example.com/private-path",
        "Torchpruner-Webhook-Secret": "webhook-secret",
    }
    moment = time.time()
    shown = owner.post(
        "/v1/models", params={"input": list(file.inputs), "name": "m"}, content=file.content,
        headers=headers,
    ).json()  # fmt: skip
    model = shown["id"]
    assert owner.get(f"/v1/models/{model}", params={"wait": 60}).json()["state"] == "ready"
    ask = {"node": "self.conv1.weight", "index": [0, 1]}
    for _ in range(3):
        cut = owner.post(f"/v1/models/{model}/cut-analysis", json=ask).json()
    cut.pop("model")
    owner.patch(f"/v1/models/{model}", json={"note": "private note", "tags": ["t"]})
    saved = owner.post(f"/v1/models/{model}/cuts", json={"name": "c", "result": cut}).json()
    plan = owner.post(f"/v1/models/{model}/plans", json={"budget": {"flops": "50%"}}).json()
    made = owner.post(f"/v1/models/{model}/pruned-weights", json={"result": cut}).json()
    child = owner.post(f"/v1/models/{model}/derive", json={"result": cut, "name": "d"}).json()
    owner.delete(f"/v1/artifacts/{made['id']}")
    assert owner.post(f"/v1/models/{model}/derive", json={"result": {"terminal": {}}}).is_error
    owner.post("/v1/models/bulk-delete", json={"models": [child["id"], "m" + "a" * 26]})
    owner.delete(f"/v1/models/{model}")

    with Client(guarded.url, api_key=text, progress=False) as client:
        events = client.audit()
        assert [event.action for event in events if event.action != "cut.analyse"] == [
            "model.delete", "model.delete", "artifact.delete", "model.derive", "weights.prune",
            "plan.make", "cut.save", "model.describe", "model.upload",
        ]  # fmt: skip
        asked = [event for event in events if event.action == "cut.analyse"]
        assert len(asked) == 1 and asked[0].details["asked"][0] == {
            "node": "self.conv1.weight", "dim": 0, "slices": 2,
        }  # fmt: skip
        by_action = {event.action: event for event in events}
        assert by_action["model.derive"].subject == child["id"]
        assert by_action["model.derive"].name == "d"
        assert (
            by_action["model.derive"].details["params_after"]
            == cut["params_before"] - cut["params_removed"]
        )
        assert by_action["cut.save"].subject == saved["id"]
        assert by_action["plan.make"].subject == plan["id"]
        assert by_action["plan.make"].details["budget"] == {"flops": "50%"}
        assert by_action["artifact.delete"].subject == made["id"]
        assert by_action["model.describe"].details == {"changed": ["note", "tags"]}
        for event in events:
            assert moment - 1 <= event.at <= time.time() + 1
            assert event.key == text.split("_")[1] and event.request_id
        # Removed models keep their events, and pages are as the whole.
        of_model = client.audit(model=model)
        assert {event.model for event in of_model} == {model}
        assert len(of_model) == len(events) - 1
        found, cursor = [], None
        while True:
            page, cursor = client.audit_page(2, cursor, model=model)
            found += page
            if cursor is None:
                break
        assert found == of_model
        assert client.audit(limit=3) == events[:3]

    told = owner.get("/v1/audit", params={"limit": 1000}).text
    for hidden in (secret, "webhook-secret", "private-path", "private note"):
        assert hidden not in told
    assert foreign.get("/v1/audit").json() == {"items": [], "next": None}
    for cursor in ("-1", "o5", "../../etc", "x" * 101, "0" * 19 + "-none-zzzzzzzz"):
        assert foreign.get("/v1/audit", params={"cursor": cursor}).status_code == 422
    assert foreign.get("/v1/audit", params={"model": "../x"}).status_code == 422
    owner.close()
    foreign.close()


def test_the_trail_keeps_the_newest_events_within_its_bounds(tmp_path: Path) -> None:
    objects = Objects(tmp_path.as_uri())
    for number in range(6):
        objects.put_json(layout.audit("one") + event_name(None), {"number": number})
    objects.put_json(layout.audit("two") + event_name("m" + "a" * 26), {"number": 0})
    old = f"{10**19 - int((time.time() - 40 * 86400) * 1e9):019d}-none-00000000"
    objects.put_json(layout.audit("two") + old, {"number": -1})
    assert abs(happened_at(old) - (time.time() - 40 * 86400)) < 60
    assert trim_all(objects, most=4, days=30) == 3
    kept = page_of_events(objects, "one", "", 10, None)
    assert [event["number"] for event in kept] == [5, 4, 3, 2]
    assert [event["number"] for event in page_of_events(objects, "two", "", 10, None)] == [0]
    after = page_of_events(objects, "one", kept[1]["id"], 10, None)
    assert [event["number"] for event in after] == [3, 2]
    assert page_of_events(objects, "one", "", 10, "m" + "a" * 26) == []
    assert json.dumps(kept)
