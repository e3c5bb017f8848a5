"""Plans over HTTP and through the SDK: asked for once, exact, owned by whoever asked."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import torchpruner_core as tp
from tests.service.models import ModelFile
from tests.service.running import RunningService
from torchpruner_client import AsyncClient, Client, WeightsRequired
from torchpruner_core.planning.rules import GRANULARITIES, NORMALISERS, REDUCTIONS, SCOPES, Rules
from torchpruner_service.api.plan_schemas import PlanRules

HALF = {"budget": {"flops": "50%"}}


def make(service: RunningService, model: str, body: dict[str, Any], **headers: str) -> Any:
    return service.client.post(f"/v1/models/{model}/plans", json=body, headers=headers)


def made(service: RunningService, model: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = make(service, model, body)
    assert answer.status_code in (200, 202), answer.text
    return service.wait_job(answer.headers["location"])


def test_the_rules_of_the_service_are_the_cores_with_its_defaults() -> None:
    documented = PlanRules().model_dump(mode="json")
    assert Rules.from_dict(documented) == Rules()
    for name, allowed in (
        ("scope", SCOPES),
        ("granularity", GRANULARITIES),
        ("aggregate", REDUCTIONS),
        ("normalize", NORMALISERS),
    ):
        for value in allowed:
            rules = PlanRules.model_validate({name: value})
            assert Rules.from_dict(rules.plain()) == Rules(**{name: value})


def test_a_plan_costs_no_more_than_its_budget_and_is_exact(
    service: RunningService, model_id: str
) -> None:
    body = {**HALF, "rules": {"round_to": 4}, "frontier": [0.75, 0.5, 0.25]}
    shown = made(service, model_id, body)
    assert shown["state"] == "ready", shown["problem"]
    cost = shown["costs"]["flops"]
    assert cost["after"] <= cost["limit"] <= cost["before"] / 2
    assert all(width["after"] < width["before"] for width in shown["widths"])
    after = [point["costs"]["flops"]["after"] for point in shown["frontier"]]
    assert after == sorted(after, reverse=True) and after[1] == cost["after"]
    bounds = [
        [group.get("bound") for group in shown["plan"]["groups"]],
        shown["frontier"][1]["bounds"],
    ]
    assert bounds[0] == bounds[1] and "budget" in bounds[0]
    derived = service.client.post(f"/v1/plans/{shown['id']}/derive", json={"name": "half"}).json()
    assert derived["name"] == "half"
    flops = service.client.get(f"/v1/models/{derived['id']}/flops").json()
    assert flops["flops"] == cost["after"]


def test_the_same_request_is_the_same_plan(service: RunningService, model_id: str) -> None:
    body = {"budget": {"params": 0.6}, "rules": {"protect": ["Linear"]}}
    first = made(service, model_id, body)
    again = make(service, model_id, body, **{"Idempotency-Key": "k1"})
    assert again.status_code == 200 and again.json()["id"] == first["id"]
    assert again.json()["result"] == first["result"]
    other = make(service, model_id, HALF, **{"Idempotency-Key": "k1"})
    assert other.status_code == 422 and other.json()["type"] == "idempotency-key-reused"


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        ({"budget": {}}, "invalid-budget"),
        ({"budget": {"flops": "0%"}}, "invalid-budget"),
        ({"budget": {"flops": "150%"}}, "invalid-budget"),
        ({"budget": {"flops": "5 bananas"}}, "invalid-budget"),
        ({**HALF, "rules": {"round_to": 0}}, "invalid-rule"),
        ({**HALF, "scores": {"axes": [{"node": "self.no", "dim": 0, "values": [1]}]}}, None),
        ({**HALF, "importance": "taylor"}, "invalid-request"),
        ({**HALF, "frontier": [0]}, "invalid-request"),
        ({**HALF, "colour": "red"}, "invalid-request"),
        ([], "invalid-request"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused_before_any_work(
    service: RunningService, model_id: str, body: Any, slug: str | None
) -> None:
    before = service.client.get(f"/v1/models/{model_id}/plans").json()["total"]
    answer = make(service, model_id, body)
    assert answer.status_code == 422, answer.text
    assert slug is None or answer.json()["type"] == slug
    if "colour" in body:
        assert answer.json()["detail"].startswith("body.colour: there is no field of this name")
    assert service.client.get(f"/v1/models/{model_id}/plans").json()["total"] == before


def test_a_budget_that_cannot_be_met_names_the_nearest(
    service: RunningService, model_id: str
) -> None:
    shown = made(service, model_id, {"budget": {"flops": 1}})
    assert shown["state"] == "failed"
    assert shown["problem"]["type"] == "infeasible-budget" and shown["problem"]["nearest"] > 1


def test_scores_that_are_sent_decide_what_goes(service: RunningService, model_id: str) -> None:
    node = "self.layer1.0.conv1.weight"
    nodes = service.client.get(
        f"/v1/models/{model_id}/nodes", params={"prefix": node, "limit": 1000}
    ).json()["items"]
    width = next(item["shape"][0] for item in nodes if item["name"] == node)
    values = np.arange(width, dtype=float)[::-1] + 1  # the last slices matter least
    scores = {"name": "mine", "axes": [{"node": node, "dim": 0, "values": values.tolist()}]}
    shown = made(service, model_id, {"budget": {"flops": "98%"}, "scores": scores})
    assert shown["state"] == "ready", shown["problem"]
    gone = tp.CutResult.from_dict(shown["result"]).terminal[node][0]
    assert gone is not None and gone[-1] == width - 1
    assert gone.tolist() == list(range(width - len(gone), width))
    assert 0 < shown["score_kept"] < 1


def test_an_importance_is_computed_from_the_weights_here(
    service: RunningService, onnx_file: ModelFile
) -> None:
    import io

    with Client(service.url, progress=False) as client:
        remote = client.upload(io.BytesIO(onnx_file.content).getvalue(), name="with weights")
        plan = remote.plan(tp.Budget(flops="60%"), importance="magnitude", round_to=2)
        graph = tp.solve_onnx(onnx_file.content)
        import torch

        weights = {f"self.{k}": v for k, v in onnx_file.module.state_dict().items()}
        assert all(isinstance(value, torch.Tensor) for value in weights.values())
        here = tp.plan(
            graph, tp.Budget(flops="60%"), tp.importance.magnitude(weights, graph), round_to=2
        )
        assert plan.result == here.result and plan.scores == "magnitude"
        orders = remote.slice_orders("magnitude")
        assert orders == {
            axis: tuple(order.index.tolist()) for order in here.orders() for axis in order.axes
        }


def test_plans_of_the_sdk_are_the_cores_own(service: RunningService, model_id: str) -> None:
    with Client(service.url, progress=False) as client:
        remote = client.model(model_id)
        plan = remote.plan(tp.Budget(flops="70%"), round_to=8, name="seventy")
        assert isinstance(plan, tp.Plan) and "seventy" in [p.name for p in remote.plans()]
        assert plan.costs["flops"].share <= 0.7
        (record,) = [p for p in remote.plans() if p.name == "seventy"]
        assert remote.saved_plan(record.id).result == plan.result
        points = remote.frontier({"flops": "50%"}, [0.9, 0.5])
        assert [p.fraction for p in points] == [0.9, 0.5]
        with pytest.raises(tp.InfeasibleBudgetError):
            remote.plan(tp.Budget(flops=1))
        with pytest.raises(tp.errors.PlanError):
            remote.plan(tp.Budget(flops="50%"), round_too=8)
        remote.delete_plan(record.id)
        assert "seventy" not in [p.name for p in remote.plans()]

    async def asynchronously() -> Any:
        async with AsyncClient(service.url, progress=False) as aclient:
            model = await aclient.model(model_id)
            return await model.plan(tp.Budget(flops="70%"), round_to=8)

    assert asyncio.run(asynchronously()).result == plan.result


def test_a_latency_is_measured_for_a_model_without_weights_too(service: RunningService) -> None:
    import torch
    from torch import nn

    module = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    ).eval()  # fmt: skip
    with Client(service.url, progress=False) as client:
        remote = client.upload(module, [torch.zeros(1, 3, 64, 64)])
        with pytest.raises(WeightsRequired):
            client.model(remote.id).plan(tp.Budget(flops="50%"), importance="magnitude")
        plan = remote.plan({"latency": "90%"}, round_to=16)
        cost = plan.costs["latency"]
        assert plan.rounds and cost.after <= cost.limit
        (record,) = [p for p in remote.plans() if "latency" in p.budget]
        assert record.measured_on is not None and record.measured_on["threads"] == 1
        assert record.measured_on["device"] and record.measured_on["load"]["cpus"] >= 1
        judged = remote.plan(tp.Budget(flops="50%"), importance="magnitude")
        assert judged.scores == "magnitude" and remote.refresh().has_weights


def test_files_are_made_of_a_plan(service: RunningService, onnx_file: ModelFile) -> None:
    model = service.upload(onnx_file.content)["id"]
    plan = made(service, model, {"budget": {"flops": "80%"}})
    for kind, body in (("pruned-weights", {"format": "npz"}), ("pruned-onnx", None)):
        answer = service.client.post(f"/v1/plans/{plan['id']}/{kind}", json=body)
        assert answer.status_code in (200, 202), answer.text
        assert service.wait_job(answer.headers["location"])["state"] == "ready"
    job = service.client.post(f"/v1/plans/{plan['id']}/latency", json={"runs": 3, "warm_up": 1})
    assert service.wait_job(job.headers["location"])["state"] == "ready"


def test_a_removed_plan_is_gone_and_can_be_made_again(
    service: RunningService, model_id: str
) -> None:
    body = {"budget": {"flops": "55%"}}
    plan = made(service, model_id, body)
    assert service.client.delete(f"/v1/plans/{plan['id']}").status_code == 204
    for path in ("", "/events"):
        assert service.client.get(f"/v1/plans/{plan['id']}{path}").status_code == 404
    assert made(service, model_id, body)["result"] == plan["result"]
