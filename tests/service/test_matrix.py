"""Every route against every kind of caller, taken from the OpenAPI document: a new route is tried
without anybody thinking of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.service.models import Small, onnx_of
from tests.service.running import PATIENCE, RunningService
from tests.service.test_access import caller, ended, keys
from torchpruner_core.importing.wire import strip_weights

DOCUMENT = json.loads((Path(__file__).parents[2] / "service" / "openapi.json").read_text())

PUBLIC = {("get", "/healthz"), ("get", "/readyz")}
"""All that is answered without a key."""

QUESTIONS = {"/v1/models/{model}/cut-analysis", "/v1/models/{model}/cut_analysis"}
"""POST routes that change nothing, so that a key that only reads may ask."""

ROUTES = [(method, path) for path, item in DOCUMENT["paths"].items() for method in item]


def operation(method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


def scopes(method: str, path: str) -> set[str]:
    """The scopes that the document says a key needs."""
    return {
        scope
        for way in operation(method, path).get("security", [])
        for names in way.values()
        for scope in names
    }


@dataclass(frozen=True)
class World:
    """One tenant's things, and callers who are not that tenant, or not all of it."""

    service: RunningService
    owner: httpx.Client
    reader: httpx.Client
    foreign: httpx.Client
    anonymous: httpx.Client
    ids: dict[str, str]
    cut: dict[str, Any]

    def ask(self, client: httpx.Client, method: str, path: str) -> httpx.Response:
        """Send what the document says the route takes, about the owner's things."""
        found = operation(method, path)
        names = [part["name"] for part in found.get("parameters", []) if part["in"] == "path"]
        unknown = [name for name in names if name not in self.ids]
        assert not unknown, f"{path} is about {unknown}: give the owner one of these above"
        headers = {
            part["name"]: "0"
            for part in found.get("parameters", [])
            if part["in"] == "header" and part.get("required")
        }
        kinds = found.get("requestBody", {}).get("content", {})
        options: dict[str, Any] = {}
        if "application/octet-stream" in kinds:
            options["content"] = b"no model"
        elif "application/json" in kinds:
            options["json"] = self._body(path, kinds["application/json"]["schema"])
        url = path.format(**{name: self.ids[name] for name in names})
        answer = client.request(method.upper(), url, headers=headers, **options)
        return answer

    def _body(self, path: str, schema: dict[str, Any]) -> Any:
        while "$ref" in schema or "anyOf" in schema:
            if "anyOf" in schema:
                schema = schema["anyOf"][0]
            else:
                schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        body = dict(schema["examples"][0])
        if "result" in schema.get("properties", {}):
            body["result"] = self.cut
        if "node" in body:
            body["node"] = "self.conv1.weight"
        return body


@pytest.fixture(scope="module")
def world(guarded: RunningService) -> Iterator[World]:
    owner = caller(guarded, keys(guarded, "create", "--tenant", "owner"))
    reader = caller(guarded, keys(guarded, "create", "--tenant", "owner", "--scopes", "read"))
    foreign = caller(guarded, keys(guarded, "create", "--tenant", "foreign"))
    whole = onnx_of(Small(11, 24).eval(), torch.zeros(1, 3, 8, 8))
    model = owner.post("/v1/models", content=strip_weights(whole), params={"name": "secret"})
    shown = ended(owner, model.headers["location"])
    attached = owner.post(f"/v1/models/{shown['id']}/weights", content=whole)
    assert ended(owner, attached.headers["location"])["state"] == "ready"
    cut = owner.post(
        f"/v1/models/{shown['id']}/cut-analysis",
        json={"node": "self.conv1.weight", "index": [0]},
    ).json()
    cut.pop("model")
    made = owner.post(f"/v1/models/{shown['id']}/pruned-weights", json={"result": cut}).json()
    artifact = ended(owner, f"/v1/artifacts/{made['id']}")
    assert artifact["state"] == "ready"
    asked = owner.post(f"/v1/models/{shown['id']}/plans", json={"budget": {"params": "90%"}})
    plan = ended(owner, asked.headers["location"])
    assert plan["state"] == "ready", plan
    saved = owner.post(f"/v1/models/{shown['id']}/cuts", json={"name": "c", "result": cut})
    assert saved.status_code == 201, saved.text
    ids = {
        "model": shown["id"],
        "digest": shown["blob"],
        "artifact": artifact["id"],
        "job": artifact["job"],
        "plan": plan["id"],
        "cut": saved.json()["id"],
        "upload": owner.post("/v1/uploads", json={"length": 10}).json()["id"],
    }
    anonymous = httpx.Client(base_url=guarded.url, timeout=PATIENCE)
    yield World(guarded, owner, reader, foreign, anonymous, ids, cut)
    for client in (owner, reader, foreign, anonymous):
        client.close()


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_key_only_health_is_told(world: World, method: str, path: str) -> None:
    assert bool(scopes(method, path)) == ((method, path) not in PUBLIC)
    answer = world.ask(world.anonymous, method, path)
    assert (answer.status_code == 401) == ((method, path) not in PUBLIC), answer.text
    told(world, answer)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_another_tenant_s_things_look_absent(world: World, method: str, path: str) -> None:
    answer = world.ask(world.foreign, method, path)
    if "{" in path:
        assert answer.status_code == 404, (answer.status_code, answer.text)
    told(world, answer)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_key_that_only_reads_changes_nothing(world: World, method: str, path: str) -> None:
    needed = scopes(method, path)
    if method not in ("get", "head") and path not in QUESTIONS:
        assert "write" in needed, f"{method} {path} changes something, and a reader may do it"
    answer = world.ask(world.reader, method, path)
    assert (answer.status_code == 403) == bool(needed - {"read"}), answer.text


def test_the_owner_still_has_everything(world: World) -> None:
    ids = world.ids
    assert world.owner.get(f"/v1/models/{ids['model']}").json()["has_weights"] is True
    assert world.owner.get(f"/v1/models/{ids['model']}").json()["name"] == "secret"
    assert world.owner.get(f"/v1/artifacts/{ids['artifact']}/content").status_code == 200
    assert world.owner.get(f"/v1/jobs/{ids['job']}").json()["state"] == "ready"
    assert world.owner.get(f"/v1/uploads/{ids['upload']}").json()["offset"] == 0
    assert world.owner.head(f"/v1/blobs/{ids['digest']}").status_code == 200
    assert world.owner.get(f"/v1/plans/{ids['plan']}").json()["state"] == "ready"
    assert world.owner.get(f"/v1/cuts/{ids['cut']}").json()["name"] == "c"
    lineage = world.owner.get(f"/v1/models/{ids['model']}/lineage").json()
    assert lineage["children"] == []


def test_the_same_model_of_another_tenant_opens_nothing_else(world: World) -> None:
    """Whoever has the same bytes sees the graph, and none of what was added to it."""
    whole = onnx_of(Small(11, 24).eval(), torch.zeros(1, 3, 8, 8))
    shown = world.foreign.post("/v1/models", content=strip_weights(whole)).json()
    assert shown["id"] == world.ids["model"]
    for method, path in ROUTES:
        if any(f"{{{name}}}" in path for name in ("artifact", "job", "plan", "cut", "upload")):
            assert world.ask(world.foreign, method, path).status_code == 404, (method, path)
        elif method in ("get", "head"):
            answer = world.ask(world.foreign, method, path)
            for name in ("artifact", "job", "plan", "cut", "upload"):
                assert world.ids[name] not in answer.text, (method, path)
            assert "secret" not in answer.text, (method, path)
    refused = world.ask(world.foreign, "post", "/v1/models/{model}/pruned-weights")
    assert (refused.status_code, refused.json()["type"]) == (409, "weights-required")


def told(world: World, answer: httpx.Response) -> None:
    """Fail where an answer holds an id of the owner's that was not in the request itself."""
    for secret in (*world.ids.values(), "secret"):
        if secret not in str(answer.request.url) and secret not in answer.request.read().decode():
            assert secret not in answer.text
