"""The FastAPI application of one API process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio.to_thread
import structlog
from fastapi import FastAPI

from torchpruner_service.api import problem_answers
from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.audit_trail import AuditTrail
from torchpruner_service.api.body_limit import BodyLimit
from torchpruner_service.api.catalog import Catalog
from torchpruner_service.api.graph_cache import GraphCache
from torchpruner_service.api.middleware import Observed
from torchpruner_service.api.openapi import describe
from torchpruner_service.api.quotas import Quotas
from torchpruner_service.api.readiness import Readiness
from torchpruner_service.api.routers import (
    analysis,
    artifacts,
    audit,
    derivation,
    health,
    job_lists,
    jobs,
    models,
    plans,
    saved_cuts,
    uploads,
    weights,
)
from torchpruner_service.api.same_site import SameSite
from torchpruner_service.api.webhook_delivery import deliver_webhooks
from torchpruner_service.auth.api_keys import KeyRing
from torchpruner_service.auth.rate_limit import RateLimits
from torchpruner_service.identity import engine_version
from torchpruner_service.observability.metrics_port import metrics_port
from torchpruner_service.settings import Settings
from torchpruner_service.state.job_board import JobBoard
from torchpruner_service.state.keys import Keys
from torchpruner_service.state.reconciler import INTERVAL, Reconciler
from torchpruner_service.state.redis_clients import REDIS_ERRORS, async_client, retrying_client
from torchpruner_service.storage.objects import Objects

log = structlog.get_logger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application; it connects when it starts."""
    settings = settings or Settings()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = _state(settings)
        app.state.pruner = state
        background = [
            asyncio.create_task(_look_for_stuck_jobs(state)),
            asyncio.create_task(deliver_webhooks(state)),
        ]
        try:
            async with metrics_port(state):
                yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await state.audit.close()
            await state.redis.aclose()

    app = FastAPI(
        title="torchpruner-service",
        version=engine_version().partition("+")[0],
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    problem_answers.install(app)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, timeout=settings.body_timeout)
    if not settings.auth_required:
        app.add_middleware(SameSite, settings=settings)
    app.add_middleware(Observed, send_timeout=settings.download_idle_timeout)
    for router in (
        health.router,
        models.router,
        weights.router,
        analysis.router,
        derivation.router,
        artifacts.router,
        saved_cuts.router,
        plans.router,
        audit.router,
        job_lists.router,
        jobs.router,
        uploads.router,
    ):
        app.include_router(router)
    describe(app)
    return app


def _state(settings: Settings) -> AppState:
    objects = Objects(settings.effective_storage_url)
    redis: Any = async_client(settings.effective_redis_url)
    keys = Keys(settings.redis_prefix)
    board = JobBoard(retrying_client(settings.effective_redis_url), objects, settings)
    catalog = Catalog(redis, objects, keys)
    return AppState(
        settings=settings,
        redis=redis,
        board=board,
        objects=objects,
        keys=keys,
        graphs=GraphCache(settings.graph_cache_bytes),
        key_ring=KeyRing(objects),
        catalog=catalog,
        quotas=Quotas(catalog, objects, settings),
        readiness=Readiness(settings.effective_redis_url, redis, board, objects),
        rates=RateLimits(redis, keys),
        audit=AuditTrail(objects, settings),
    )


async def _look_for_stuck_jobs(state: AppState) -> None:
    reconciler = Reconciler(state.board)
    while True:
        try:
            await anyio.to_thread.run_sync(reconciler.step)
        except REDIS_ERRORS:
            pass
        except Exception:
            log.exception("looking for stuck jobs failed")
        await asyncio.sleep(INTERVAL)
