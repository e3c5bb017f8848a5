"""What a tenant adds to a model is the tenant's alone, though others have the same model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import torch

from tests.service.models import Small, onnx_of, small_file, torchscript_of
from tests.service.running import RunningService
from tests.service.test_access import caller, ended, keys
from torchpruner_core.importing.wire import strip_weights


@dataclass(frozen=True)
class Tenant:
    """A caller who waits for what it asked for."""

    client: httpx.Client

    def upload(self, content: bytes, *inputs: str, **params: str) -> dict[str, Any]:
        answer = self.client.post(
            "/v1/models", params={"input": list(inputs), **params}, content=content
        )
        assert answer.status_code in (200, 202), answer.text
        return self.get(answer.headers["location"])

    def get(self, path: str) -> dict[str, Any]:
        return ended(self.client, path)

    def made(self, model: str, kind: str, **body: Any) -> dict[str, Any]:
        answer = self.client.post(f"/v1/models/{model}/{kind}", json=body)
        assert answer.status_code in (200, 202), answer.text
        return self.get(answer.headers["location"])

    def attach(self, model: str, content: bytes) -> dict[str, Any]:
        answer = self.client.post(f"/v1/models/{model}/weights", content=content)
        assert answer.status_code in (200, 202), answer.text
        return self.get(answer.headers["location"])


@pytest.fixture
def two(guarded: RunningService) -> Iterator[tuple[Tenant, Tenant]]:
    names = [f"t{time.time_ns()}-{number}" for number in range(2)]
    clients = [caller(guarded, keys(guarded, "create", "--tenant", name)) for name in names]
    yield Tenant(clients[0]), Tenant(clients[1])
    for client in clients:
        client.close()


def weighted(seed: int, width: int = 8) -> bytes:
    """A whole ONNX file; another seed gives other weights of the same architecture."""
    module = Small(seed, width).eval()
    # Small enough to stay in the weightless form, where it would tell the two apart.
    with torch.no_grad():
        dict(module.named_parameters())["conv2.bias"].zero_()
    return onnx_of(module, torch.zeros(1, 3, 8, 8))


def test_weights_that_one_tenant_added_are_not_another_s(two: tuple[Tenant, Tenant]) -> None:
    one, other = two
    secret, own = weighted(1, 24), weighted(2, 24)
    bare = strip_weights(secret)
    assert strip_weights(own) == bare
    model = one.upload(bare)["id"]
    assert one.attach(model, secret)["state"] == "ready"
    assert one.get(f"/v1/models/{model}")["has_weights"] is True
    mine = one.made(model, "pruned-weights", format="npz")

    assert other.upload(bare)["id"] == model
    assert other.get(f"/v1/models/{model}")["has_weights"] is False
    assert [item["has_weights"] for item in other.get("/v1/models")["items"]] == [False]
    refused = other.client.post(f"/v1/models/{model}/pruned-weights", json={"format": "npz"})
    assert (refused.status_code, refused.json()["type"]) == (409, "weights-required")

    # Adding its own changes nothing for the first.
    assert other.attach(model, own)["state"] == "ready"
    theirs = other.made(model, "pruned-weights", format="npz")
    assert theirs["sha256"] != mine["sha256"] and theirs["id"] != mine["id"]
    again = one.made(model, "pruned-weights", format="npz")
    assert (again["id"], again["sha256"]) == (mine["id"], mine["sha256"])

    # What the first removes is gone for the first alone.
    assert one.client.delete(f"/v1/models/{model}").status_code == 204
    assert one.client.get(f"/v1/artifacts/{mine['id']}").status_code == 404
    assert other.get(f"/v1/models/{model}")["has_weights"] is True
    assert other.client.get(theirs["content"]).status_code == 200
    assert one.upload(bare)["has_weights"] is False


def test_weights_stay_while_a_derived_model_needs_them(two: tuple[Tenant, Tenant]) -> None:
    one, _ = two
    whole = weighted(3, 20)
    model = one.upload(strip_weights(whole))["id"]
    one.attach(model, whole)
    cut = one.client.post(
        f"/v1/models/{model}/cut-analysis", json={"node": "self.conv1.weight", "index": [0]}
    ).json()
    cut.pop("model")
    child = one.client.post(f"/v1/models/{model}/derive", json={"result": cut}).json()
    assert one.client.delete(f"/v1/models/{model}").status_code == 204
    assert one.get(f"/v1/models/{child['id']}")["has_weights"] is True
    assert one.made(child["id"], "pruned-weights")["state"] == "ready"
    assert one.client.delete(f"/v1/models/{child['id']}").status_code == 204
    assert one.upload(strip_weights(whole))["has_weights"] is False


def test_files_jobs_and_times_of_another_tenant_do_not_show(two: tuple[Tenant, Tenant]) -> None:
    one, other = two
    file = small_file(70)
    shown = one.upload(file.content, *file.inputs, name="mine")
    model = shown["id"]
    artifact = one.made(model, "pruned-weights")
    measured = one.client.post(f"/v1/models/{model}/latency", json={"runs": 1}).json()
    build = one.get(f"/v1/jobs/{shown['job']}")
    moment = time.time()

    seen = other.upload(file.content, *file.inputs)
    assert seen["id"] == model and seen["name"] is None
    assert seen["created_at"] >= moment > shown["created_at"]
    theirs = other.get(f"/v1/jobs/{shown['job']}")
    for field in ("queued_at", "started_at", "ended_at"):
        assert theirs[field] >= moment > build[field]
    lineage = other.get(f"/v1/models/{model}/lineage")
    assert all(entry["created_at"] >= moment for entry in lineage["ancestors"])
    for path in (
        f"/v1/artifacts/{artifact['id']}",
        f"/v1/artifacts/{artifact['id']}/content",
        f"/v1/artifacts/{artifact['id']}/events",
        f"/v1/jobs/{artifact['job']}",
        f"/v1/jobs/{artifact['job']}/events",
        f"/v1/jobs/{measured['id']}",
    ):
        assert other.client.get(path).status_code == 404, path
    assert other.client.delete(f"/v1/jobs/{measured['id']}").status_code == 404
    assert other.client.delete(f"/v1/artifacts/{artifact['id']}").status_code == 404
    assert one.client.get(artifact["content"]).status_code == 200
    # The same request of the other tenant is a file, and a job, of its own.
    own = other.made(model, "pruned-weights")
    assert own["id"] != artifact["id"] and own["sha256"] == artifact["sha256"]


class Slow(torch.nn.Module):
    """Takes a few seconds to build, so that others can come meanwhile."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = torch.nn.Sequential(
            *[torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU()) for _ in range(150)]
        )

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x)


@pytest.mark.parametrize("way", ["job", "model"])
def test_a_shared_build_is_cancelled_only_by_its_last_owner(
    two: tuple[Tenant, Tenant], way: str
) -> None:
    one, other = two
    content = torchscript_of(Slow(80 if way == "job" else 81).eval(), torch.zeros(1, 16))
    # Another build goes first, so that this one waits.
    first = one.client.post(
        "/v1/models",
        params={"input": "x:1x16"},
        content=torchscript_of(Slow(82).eval(), torch.zeros(2, 16)),
    ).json()
    shown = one.client.post("/v1/models", params={"input": "x:1x16"}, content=content).json()
    assert other.client.post(
        "/v1/models", params={"input": "x:1x16"}, content=content
    ).status_code in (200, 202)
    path = f"/v1/{'jobs' if way == 'job' else 'models'}/{shown['job' if way == 'job' else 'id']}"
    assert one.client.delete(path).status_code == 204
    if way == "job":
        # For whoever cancelled it, it is; and can be started again.
        assert one.get(f"/v1/jobs/{shown['job']}")["state"] in {"cancelled", "ready"}
    assert other.get(f"/v1/models/{shown['id']}")["state"] == "ready"
    assert one.get(f"/v1/models/{first['id']}")["state"] == "ready"
