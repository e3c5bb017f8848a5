"""Plans: asked for, found again, shown, and turned into models and files."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import anyio.to_thread

from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import CutResult
from torchpruner_core.cut_warnings import cut_warnings
from torchpruner_core.planning.aggregation import check_scores
from torchpruner_core.planning.budget import Budget
from torchpruner_core.planning.errors import RuleError
from torchpruner_core.planning.rules import Rules
from torchpruner_core.planning.scores import Scores
from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.audit_trail import note
from torchpruner_service.api.jobs_service import find_job, submit, tell_ready, waiting_message
from torchpruner_service.api.models_service import graph_of, manifest_of, weights_source
from torchpruner_service.api.ownership import OwnedPlan, unknown_plan
from torchpruner_service.api.plan_schemas import PlanRequest
from torchpruner_service.api.schemas import Result
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.identity import plan_id
from torchpruner_service.observability.logs import current_request_id
from torchpruner_service.observability.tracing import current_trace
from torchpruner_service.problems import Conflict, InvalidRequest, RateLimited
from torchpruner_service.state.job_record import JobRecord
from torchpruner_service.storage import layout

MOST_PLANS = 1000
"""Plans that a tenant may keep of one model."""

MOST_KEYS = 10_000
"""Idempotency keys that are remembered of a tenant's model."""


async def request_plan(
    state: AppState,
    who: Principal,
    model: str,
    body: PlanRequest,
    key: str | None,
    watchers: list[dict[str, str]],
) -> OwnedPlan:
    """Have a plan made unless it is made or being made.

    The same request is the same plan, with or without an idempotency key; a key that came with another
    request before is refused. Raises the planner's errors for a request that cannot be met, before any
    work, and a ``Conflict`` where an importance needs weights that are not here.
    """
    manifest = await manifest_of(state, who.tenant, model)
    cached = await graph_of(state, who.tenant, model)
    request = await anyio.to_thread.run_sync(_checked, cached.graph, body)
    identifier = plan_id(who.tenant, model, request)
    await _take_key(state, who.tenant, model, key, identifier)
    note(budget=request["budget"], importance=request["importance"])
    known = await state.catalog.held(who.tenant, model, layout.PLANS, identifier)
    if known is None:
        held = await state.catalog.held_items(who.tenant, model, layout.PLANS)
        if len(held) >= MOST_PLANS:
            raise RateLimited(
                f"there are {len(held)} plans of this model; delete some first",
                slug="too-many-plans",
                limit=MOST_PLANS,
            )
        await state.quotas.check_bytes(who, len(json.dumps(request)))
    work = await _work(state, who.tenant, manifest, request)
    asked = known or {"request": request, "name": body.name, "created_at": time.time()}
    if known is None or body.name not in (None, known["name"]):
        asked["name"] = body.name
        await state.catalog.hold(who.tenant, model, layout.PLANS, asked, identifier)
    record = JobRecord(
        id=identifier,
        kind="plan",
        tenant=who.tenant,
        model=model,
        request=work,
        request_id=current_request_id(),
        trace=current_trace(),
        watchers=watchers,
    )
    if await state.catalog.held(who.tenant, model, layout.PLANNED, identifier) is not None:
        await tell_ready(state, record)
    else:
        # What was measured is of the moment: asked for again, it is measured again.
        again = ("failed",) if "latency" in request["budget"] else ()
        await submit(state, record, restart=("cancelled", "ready", *again))
    return OwnedPlan(identifier, model, asked)


def _checked(graph: SolvedGraph, body: PlanRequest) -> dict[str, Any]:
    """Return the request as plain JSON, read as the planner will read it."""
    if body.scores is not None and body.importance is not None:
        raise InvalidRequest(
            "a plan has either scores or an importance that the service computes them with"
        )
    amounts = body.budget.model_dump(exclude_none=True)
    Budget(**amounts, runtime=_Measured() if "latency" in amounts else None)
    rules = body.rules.plain()
    try:
        Rules.from_dict(rules)
    except (TypeError, ValueError) as error:
        raise RuleError(f"the rules cannot be read: {error}") from error
    scores = None
    if body.scores is not None:
        read = Scores.from_dict(body.scores.model_dump())
        check_scores(graph, read)
        scores = read.to_dict()
    request = {
        "budget": amounts,
        "rules": rules,
        "scores": scores,
        "importance": body.importance,
        "frontier": body.frontier,
    }
    return request | ({"order": True} if body.order else {})


class _Measured:
    """Stands for the worker's runtime, so that a latency's amount can be checked here."""

    def session(self, graph: Any) -> Any:
        raise NotImplementedError


async def _work(
    state: AppState, tenant: str, manifest: dict[str, Any], request: dict[str, Any]
) -> dict[str, Any]:
    """What the worker needs beside the request: the model's file, where that is judged or timed."""
    timed = "latency" in request["budget"]
    judged = request["importance"] is not None
    if not timed and not judged:
        return {}
    try:
        blob, form = await weights_source(state, tenant, manifest)
        weights = True
    except Conflict:
        if judged or manifest.get("blob") is None:
            raise
        # The shapes decide how long it takes: what has no weights is timed with random ones.
        blob, form, weights = manifest["blob"], manifest["format"], False
    return {
        "blob": blob,
        "source_format": form,
        "inputs": manifest["inputs"],
        "cuts": manifest.get("cuts", []),
        "timed": timed,
        "weights": weights,
    }


async def _take_key(
    state: AppState, tenant: str, model: str, key: str | None, identifier: str
) -> None:
    if not key:
        return
    item = hashlib.sha256(key.encode()).hexdigest()
    async with state.catalog.changing(tenant, model):
        known = await state.catalog.held(tenant, model, layout.KEYS_SEEN, item)
        if known is None:
            held = await state.catalog.held_items(tenant, model, layout.KEYS_SEEN)
            if len(held) >= MOST_KEYS:
                raise RateLimited(
                    f"{len(held)} idempotency keys were used for plans of this model; ask without a key "
                    "(the same request is the same plan), or delete the model",
                    slug="too-many-keys",
                    limit=MOST_KEYS,
                )
            facts = {"plan": identifier, "at": time.time()}
            await state.catalog.hold(tenant, model, layout.KEYS_SEEN, facts, item)
    if known is not None and known["plan"] != identifier:
        raise InvalidRequest(
            "this Idempotency-Key came with another request before; use a new one",
            slug="idempotency-key-reused",
            plan=known["plan"],
        )


async def plan_view(
    state: AppState, tenant: str, plan: OwnedPlan, *, whole: bool = True
) -> dict[str, Any]:
    """Return a plan as ``GET /v1/plans/{plan}`` shows it; ``whole`` with its cut."""
    request = plan.asked["request"]
    shown: dict[str, Any] = {
        "id": plan.id,
        "model": plan.model,
        "name": plan.asked.get("name"),
        "created_at": plan.asked["created_at"],
        "budget": request["budget"],
        "rules": request["rules"],
        "importance": request["importance"],
        "scores": request["scores"]["name"] if request["scores"] else None,
    }
    made = await state.catalog.held(tenant, plan.model, layout.PLANNED, plan.id)
    if made is not None:
        shown |= {"state": "ready", "stage": "ready", "percent": 100.0}
        shown |= {key: made[key] for key in ("costs", "score_kept", "frontier")}
        shown["measured_on"] = made.get("measured_on")
        if not whole:
            return shown
        return shown | _parts(made["plan"]) | {"order": made.get("order")}
    record = await find_job(state, plan.id)
    if record is None:
        # Redis came back empty, or forgot a job that ended long ago.
        pending = await state.objects.aexists(layout.pending(plan.id))
        waiting = "queued" if pending else "cancelled"
        return shown | {"state": waiting, "stage": waiting, "percent": 0.0}
    message = await waiting_message(state, record.state)
    keys = ("state", "stage", "percent", "problem")
    return shown | {key: getattr(record, key) for key in keys} | {"message": message}


def _parts(plan: dict[str, Any]) -> dict[str, Any]:
    result = plan["result"]
    widths = [
        {
            "node": node,
            "dim": dim,
            "before": result["shapes"][node][dim],
            "after": result["shapes"][node][dim] - _length(cut),
        }
        for node, axes in result["terminal"].items()
        for dim, cut in enumerate(axes)
        if cut is not None
    ]
    rest = {key: value for key, value in plan.items() if key != "result"}
    warned = cut_warnings(CutResult.from_dict(result))
    return {"widths": widths, "result": result, "plan": rest, "warnings": warned}


def _length(cut: Any) -> int:
    return len(cut) if isinstance(cut, list) else sum(stop - start for start, stop in cut["ranges"])


async def cut_of(state: AppState, tenant: str, plan: OwnedPlan) -> Result:
    """Return a plan's joint cut. Raises a ``Conflict`` where there is none yet."""
    made = await state.catalog.held(tenant, plan.model, layout.PLANNED, plan.id)
    if made is None:
        shown = await plan_view(state, tenant, plan, whole=False)
        raise Conflict(
            f"the plan is not made yet ({shown['state']}); wait for it to be ready",
            slug="plan-failed" if shown["state"] == "failed" else "plan-not-ready",
            state=shown["state"],
            cause=shown.get("problem"),
        )
    return Result.model_validate(made["plan"]["result"])


async def plans_of(state: AppState, tenant: str, model: str) -> list[OwnedPlan]:
    """The plans that ``tenant`` asked for of one of its models, newest first."""
    found = []
    for item in await state.catalog.held_items(tenant, model, layout.PLANS):
        asked = await state.catalog.held(tenant, model, layout.PLANS, item)
        if asked is not None:
            found.append(OwnedPlan(item, model, asked))
    return sorted(found, key=lambda plan: -float(plan.asked["created_at"]))


async def name_plan(state: AppState, tenant: str, plan: OwnedPlan, name: str | None) -> OwnedPlan:
    """Give a plan another name. Raises ``NotFound`` where it was removed meanwhile."""
    async with state.catalog.changing(tenant, plan.model):
        asked = await state.catalog.held(tenant, plan.model, layout.PLANS, plan.id)
        if asked is None:
            raise unknown_plan(plan.id)
        asked["name"] = name
        await state.catalog.hold(tenant, plan.model, layout.PLANS, asked, plan.id)
    return OwnedPlan(plan.id, plan.model, asked)


async def remove_plan(state: AppState, tenant: str, plan: OwnedPlan) -> None:
    """Take a plan from its tenant, and end the job that makes it."""
    record = await find_job(state, plan.id)
    if record is not None and not record.ended:
        await anyio.to_thread.run_sync(state.board.leave, record, tenant)
    async with state.catalog.changing(tenant, plan.model):
        for kind in (layout.PLANNED, layout.PLANS):
            await state.catalog.drop(tenant, plan.model, kind, plan.id)
