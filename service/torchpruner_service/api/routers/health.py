"""Whether the process lives, and whether it can answer."""

from __future__ import annotations

import anyio.to_thread
from fastapi import APIRouter, Response

from torchpruner_service.api import schemas
from torchpruner_service.api.access import MetricsReader, Reader, State
from torchpruner_service.api.answers import json_answer
from torchpruner_service.api.documented import problems
from torchpruner_service.api.models_service import NO_WORKER, living_workers
from torchpruner_service.identity import engine_version
from torchpruner_service.observability.metrics import MEDIA_TYPE, render
from torchpruner_service.problems import Problem
from torchpruner_service.storage.objects import Objects

router = APIRouter(tags=["service"])


@router.get("/healthz", response_model=schemas.Health, summary="The process answers")
async def healthz() -> Response:
    """For liveness probes: touches nothing else."""
    return json_answer({"status": "ok"})


@router.get(
    "/readyz",
    response_model=schemas.Readiness,
    responses={503: {"model": schemas.Readiness, "description": "Redis or the store is away"}},
    summary="This process can answer: Redis and the object store are there",
)
async def readyz(state: State) -> Response:
    """For readiness probes: 503 while Redis or the object store is away, and ``message`` says
    which. Workers are counted and not asked for, since without one questions about built graphs
    are answered and uploads are accepted and wait; ``message`` says that too."""
    redis_ok, workers = True, 0
    try:
        workers = len(await living_workers(state))
    except Problem:
        redis_ok = False
    storage_ok = await anyio.to_thread.run_sync(_answers, state.objects)
    message = None
    if not redis_ok:
        message = "Redis does not answer"
    elif not storage_ok:
        message = "the object store does not answer"
    elif not workers:
        message = NO_WORKER
    ready = redis_ok and storage_ok
    body = {
        "ready": ready,
        "redis": redis_ok,
        "storage": storage_ok,
        "workers": workers,
        "message": message,
    }
    return json_answer(body, 200 if ready else 503, {"Cache-Control": "no-store"})


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


def _answers(objects: Objects) -> bool:
    try:
        objects.check()
    except Problem:
        return False
    return True
