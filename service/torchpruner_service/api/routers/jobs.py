"""Jobs: shown, followed, cancelled; and latency, whose answer is a job's result."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio.to_thread
from fastapi import APIRouter, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from torchpruner_service.api import schemas
from torchpruner_service.api.access import Reader, State, Writer
from torchpruner_service.api.answers import json_answer
from torchpruner_service.api.audit_trail import Recorded, note
from torchpruner_service.api.csv_answers import CSV, AsCsv, csv_answer
from torchpruner_service.api.documented import problems
from torchpruner_service.api.following import follow, wait_for
from torchpruner_service.api.jobs_service import find_job
from torchpruner_service.api.jobs_view import job_view
from torchpruner_service.api.latency_service import latency_items, latency_views, request_latency
from torchpruner_service.api.ownership import OwnJob, OwnModel
from torchpruner_service.api.paging import Cursor, Limit, page
from torchpruner_service.api.path_ids import ModelId
from torchpruner_service.api.routers.artifacts import Webhook, WebhookSecret
from torchpruner_service.api.routers.models import Wait
from torchpruner_service.api.webhook_request import webhook_of

router = APIRouter(prefix="/v1", tags=["jobs"], route_class=Recorded)


LATENCY_COLUMNS = (
    "id", "measured_at", "device", "provider", "runtime", "threads", "runs", "warm_up",
    *(
        f"models.{which}.{figure}"
        for which in ("original", "pruned")
        for figure in ("median_ms", "p10_ms", "p90_ms", "p95_ms", "min_ms", "mad_ms")
    ),
    "speedup", "load.before", "load.after", "load.cpus", "cut.fingerprint", "cut.params_after",
    "cut.flops_after", "plan", "degraded",
)  # fmt: skip


@router.post(
    "/models/{model}/latency",
    status_code=202,
    response_model=schemas.JobView,
    responses=problems(409, 413),
    summary="Measure the forward pass before and after a cut",
)
async def measure_latency(
    state: State,
    who: Writer,
    model: ModelId,
    body: schemas.Latency,
    torchpruner_webhook: Webhook = None,
    torchpruner_webhook_secret: WebhookSecret = None,
) -> Response:
    """Median, 95th percentile and minimum in milliseconds of the original and the pruned ONNX model
    on the worker's device, runs interleaved. FLOPs that fall without time falling are common:
    measure."""
    watchers = webhook_of(torchpruner_webhook, torchpruner_webhook_secret, state.settings)
    record = await request_latency(state, who, model, body, watchers)
    return json_answer(
        await job_view(state, record, who.tenant),
        202,
        {"Location": f"/v1/jobs/{record.id}", "Retry-After": "1"},
    )


@router.get(
    "/models/{model}/latencies",
    response_model=schemas.Page[schemas.LatencyView],
    responses={**CSV, **problems()},
    summary="List what was measured of a model, newest first",
)
async def list_latencies(
    state: State,
    who: Reader,
    model: OwnModel,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_csv: AsCsv = False,
) -> Response:
    """Median and spread, the device, the runtime, how busy the machine was, and which cut or plan was
    measured. The newest thousand are kept."""
    items = await latency_items(state, who.tenant, model)
    if as_csv:
        views = await latency_views(state, who.tenant, model, items)
        return csv_answer(f"{model}-latencies", LATENCY_COLUMNS, views)
    shown = page(items, limit, cursor, lambda item: item)
    views = await latency_views(state, who.tenant, model, shown["items"])
    return json_answer({**shown, "items": views})


@router.get(
    "/jobs/{job}",
    response_model=schemas.JobView,
    responses=problems(),
    summary="A job and its result",
)
async def show_job(state: State, who: Reader, record: OwnJob, wait: Wait = 0) -> Response:
    if wait and not record.ended:
        await wait_for(state, record.id, wait)
        record = await find_job(state, record.id) or record
    return json_answer(await job_view(state, record, who.tenant))


@router.get(
    "/jobs/{job}/events",
    response_class=EventSourceResponse,
    responses=problems(),
    summary="Follow a job as server-sent events",
)
async def job_events(state: State, who: Reader, record: OwnJob) -> AsyncIterator[ServerSentEvent]:
    async for shown in follow(state, record.id, who.tenant):
        ended = shown["ended_at"] is not None
        yield ServerSentEvent(data=shown, event="end" if ended else "progress")


@router.delete(
    "/jobs/{job}",
    status_code=204,
    response_class=Response,
    responses=problems(),
    summary="Cancel a job",
)
async def cancel_job(state: State, who: Writer, record: OwnJob) -> Response:
    """A job that has ended stays as it is. A build that another tenant waits for goes on for that
    tenant."""
    note(model=record.model)
    if not record.ended:
        await anyio.to_thread.run_sync(state.board.leave, record, who.tenant)
    return Response(status_code=204)
