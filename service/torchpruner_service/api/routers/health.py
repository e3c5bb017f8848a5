"""Whether the process lives, and whether it can answer."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response

from torchpruner_service.api import schemas
from torchpruner_service.api.access import MetricsReader, Reader, State
from torchpruner_service.api.answers import json_answer
from torchpruner_service.api.documented import problems, problems_of
from torchpruner_service.api.jobs_service import living_workers, waiting_message
from torchpruner_service.identity import engine_version
from torchpruner_service.observability.metrics import MEDIA_TYPE, render
from torchpruner_service.problems import Unavailable

router = APIRouter(tags=["service"])


@router.get(
    "/healthz",
    response_model=schemas.Health,
    responses=problems_of(405),
    summary="The process answers",
)
async def healthz() -> Response:
    """For liveness probes: touches nothing else."""
    return json_answer({"status": "ok"})


@router.get(
    "/readyz",
    response_model=schemas.Readiness,
    responses={
        **problems_of(405),
        503: {"model": schemas.Readiness, "description": "Redis or the store is away"},
    },
    summary="This process can answer: Redis and the object store are there",
)
async def readyz(state: State) -> Response:
    """For readiness probes: 503 while a value does not make its round trip through Redis, or the
    object store does not take and give back a few bytes; ``message`` says what is in the way (a
    bucket that is missing, a full Redis, a disk without room or inodes ...). Workers are
    counted and not asked for, since without one questions about built graphs are answered and
    uploads are accepted and wait; ``message`` says that too."""
    queue, storage = await asyncio.gather(state.readiness.of_queue(), state.readiness.of_storage())
    message, workers = queue or storage, 0
    if queue is None:
        try:
            workers = len(await living_workers(state))
            message = message or await waiting_message(state, "queued")
        except Unavailable as problem:
            queue = message = problem.detail
    body = {
        "ready": queue is None and storage is None,
        "redis": queue is None,
        "storage": storage is None,
        "workers": workers,
        "message": message,
    }
    return json_answer(body, 200 if body["ready"] else 503, {"Cache-Control": "no-store"})


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
async def metrics(state: State, who: MetricsReader) -> Response:
    """Requests by route template, jobs and their stages, queue depth, cache hits, bytes: of all
    tenants, so where keys are asked for this takes one with the scope ``metrics``. Without keys it
    is on TORCHPRUNER_METRICS_PORT."""
    return Response(await render(state), media_type=MEDIA_TYPE)


@router.get(
    "/v1", response_model=schemas.Version, responses=problems(), summary="Versions and limits"
)
async def version(state: State, who: Reader) -> Response:
    engine = engine_version()
    return json_answer(
        {
            "service": engine.partition("+")[0],
            "engine": engine,
            "api": "v1",
            "max_upload_bytes": state.settings.max_upload_bytes,
            "formats": ["onnx", "torchscript", "pt2"],
            "tenant": who.tenant,
            "scopes": sorted(who.scopes),
        }
    )
