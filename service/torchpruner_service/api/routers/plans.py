"""Plans: from a budget and scores to one joint cut, and what can be made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from torchpruner_service.api import models_service, schemas
from torchpruner_service.api.access import Reader, State, Writer
from torchpruner_service.api.answers import json_answer
from torchpruner_service.api.artifacts_service import request_artifact
from torchpruner_service.api.audit_trail import Recorded
from torchpruner_service.api.documented import problems
from torchpruner_service.api.following import follow, wait_for
from torchpruner_service.api.jobs_service import find_job
from torchpruner_service.api.jobs_view import job_view
from torchpruner_service.api.latency_service import request_latency
from torchpruner_service.api.ownership import OwnModel, OwnPlan
from torchpruner_service.api.paging import Cursor, Limit, page_of_views
from torchpruner_service.api.path_ids import ModelId
from torchpruner_service.api.plan_schemas import (
    PlanDerive,
    PlanLatency,
    PlanName,
    PlanRequest,
    PlanView,
    PlanWeights,
)
from torchpruner_service.api.plans_service import (
    cut_of,
    name_plan,
    plan_view,
    plans_of,
    remove_plan,
    request_plan,
)
from torchpruner_service.api.retrying import retried
from torchpruner_service.api.routers.artifacts import Webhook, WebhookSecret, accepted
from torchpruner_service.api.routers.models import Wait
from torchpruner_service.api.webhook_request import webhook_of
from torchpruner_service.problems import Conflict

router = APIRouter(prefix="/v1", tags=["plans"], route_class=Recorded)

IdempotencyKey = Annotated[
    str | None,
    Header(max_length=200, description="Chosen by the client: one key, one request"),
]


@router.post(
    "/models/{model}/plans",
    status_code=202,
    response_model=PlanView,
    responses={200: {"model": PlanView, "description": "Made already"}, **problems(409, 413)},
    summary="Make a model cheaper: plan widths under a budget",
)
async def make_plan(
    state: State,
    who: Writer,
    model: ModelId,
    body: PlanRequest,
    idempotency_key: IdempotencyKey = None,
    torchpruner_webhook: Webhook = None,
    torchpruner_webhook_secret: WebhookSecret = None,
) -> Response:
    """The plan costs no more than the budget, exactly. The same request is the same plan. Budgets on
    scores that are sent need no weights on the service; an `importance` does; a `latency` is measured on
    a worker, with random weights where there are none."""
    watchers = webhook_of(torchpruner_webhook, torchpruner_webhook_secret, state.settings)
    plan = await request_plan(state, who, model, body, idempotency_key, watchers)
    shown = await plan_view(state, who.tenant, plan)
    ready = shown["state"] == "ready"
    headers = {"Location": f"/v1/plans/{plan.id}"} | ({} if ready else {"Retry-After": "1"})
    return json_answer(shown, 200 if ready else 202, headers)


@router.get(
    "/models/{model}/plans",
    response_model=schemas.Page[PlanView],
    responses=problems(),
    summary="List the plans of a model, newest first",
)
async def list_model_plans(
    state: State, who: Reader, model: OwnModel, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    found = await plans_of(state, who.tenant, model)
    brief = partial(plan_view, state, who.tenant, whole=False)
    return json_answer(await page_of_views(found, limit, cursor, brief))


@router.get(
    "/plans",
    response_model=schemas.Page[PlanView],
    responses=problems(),
    summary="List the plans of all models of this tenant, newest first",
)
async def list_plans(
    state: State, who: Reader, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    models = await state.catalog.models(who.tenant)
    found = [plan for each in models for plan in await plans_of(state, who.tenant, each.model)]
    found.sort(key=lambda plan: -float(plan.asked["created_at"]))
    brief = partial(plan_view, state, who.tenant, whole=False)
    return json_answer(await page_of_views(found, limit, cursor, brief))


@router.get(
    "/plans/{plan}",
    response_model=PlanView,
    responses=problems(),
    summary="A plan: its state, and its widths, costs, frontier and cut",
)
async def show_plan(state: State, who: Reader, plan: OwnPlan, wait: Wait = 0) -> Response:
    shown = await plan_view(state, who.tenant, plan)
    if wait and shown["state"] in {"queued", "running"}:
        await wait_for(state, plan.id, wait)
        shown = await plan_view(state, who.tenant, plan)
    return json_answer(shown)


@router.get(
    "/plans/{plan}/events",
    response_class=EventSourceResponse,
    responses=problems(),
    summary="Follow a plan being made, as server-sent events",
)
async def plan_events(state: State, who: Reader, plan: OwnPlan) -> AsyncIterator[ServerSentEvent]:
    async for record in follow(state, plan.id, who.tenant):
        ended = record["ended_at"] is not None
        yield ServerSentEvent(data=record, event="end" if ended else "progress")


@router.patch(
    "/plans/{plan}",
    response_model=PlanView,
    responses=problems(413),
    summary="Give a plan another name",
)
async def rename_plan(state: State, who: Writer, plan: OwnPlan, body: PlanName) -> Response:
    named = await name_plan(state, who.tenant, plan, body.name)
    return json_answer(await plan_view(state, who.tenant, named, whole=False))


@router.delete(
    "/plans/{plan}",
    status_code=204,
    response_class=Response,
    responses=problems(),
    summary="Remove a plan; cancels it where it is being made",
)
async def delete_plan(state: State, who: Writer, plan: OwnPlan) -> Response:
    await remove_plan(state, who.tenant, plan)
    return Response(status_code=204)


@router.post(
    "/plans/{plan}/retry",
    status_code=202,
    response_model=PlanView,
    responses=problems(409),
    summary="Make a plan again that was cancelled, or failed for no fault of the request",
)
async def retry_plan(state: State, who: Writer, plan: OwnPlan) -> Response:
    record = await find_job(state, plan.id)
    if record is None:
        raise Conflict(
            "the plan's job is forgotten; POST the request again",
            slug="job-not-retryable",
            plan=plan.id,
        )
    await retried(state, who.tenant, record)
    return json_answer(await plan_view(state, who.tenant, plan), 202)


@router.post(
    "/plans/{plan}/derive",
    status_code=201,
    response_model=schemas.ModelView,
    responses=problems(409, 413, 507),
    summary="The model that is left after a plan",
)
async def derive_plan(state: State, who: Writer, plan: OwnPlan, body: PlanDerive) -> Response:
    result = await cut_of(state, who.tenant, plan)
    derive = schemas.Derive(result=result, name=body.name)
    shown = await models_service.derive(state, who, plan.model, derive)
    return json_answer(shown, 201, {"Location": f"/v1/models/{shown['id']}"})


@router.post(
    "/plans/{plan}/pruned-weights",
    status_code=202,
    response_model=schemas.ArtifactView,
    responses={
        200: {"model": schemas.ArtifactView, "description": "Made already"},
        **problems(409, 413, 507),
    },
    summary="Have the weights cut as planned, as safetensors or .npz",
)
async def plan_weights(state: State, who: Writer, plan: OwnPlan, body: PlanWeights) -> Response:
    result = await cut_of(state, who.tenant, plan)
    return accepted(
        await request_artifact(state, who, plan.model, "weights", body.format, result, [])
    )


@router.post(
    "/plans/{plan}/pruned-onnx",
    status_code=202,
    response_model=schemas.ArtifactView,
    responses={
        200: {"model": schemas.ArtifactView, "description": "Made already"},
        **problems(409, 413, 507),
    },
    summary="Have the model cut as planned, as ONNX",
)
async def plan_onnx(state: State, who: Writer, plan: OwnPlan) -> Response:
    result = await cut_of(state, who.tenant, plan)
    return accepted(await request_artifact(state, who, plan.model, "onnx", "onnx", result, []))


@router.post(
    "/plans/{plan}/latency",
    status_code=202,
    response_model=schemas.JobView,
    responses=problems(409, 413),
    summary="Measure the forward pass before and after a plan",
)
async def plan_latency(state: State, who: Writer, plan: OwnPlan, body: PlanLatency) -> Response:
    result = await cut_of(state, who.tenant, plan)
    latency = schemas.Latency(result=result, **body.model_dump())
    record = await request_latency(state, who, plan.model, latency, [], plan.id)
    return json_answer(
        await job_view(state, record, who.tenant),
        202,
        {"Location": f"/v1/jobs/{record.id}", "Retry-After": "1"},
    )
