"""``/metrics`` on a port of its own, for a network that only Prometheus and the service are in.

There it needs no key; on the API's port it does as soon as the API asks for keys, since it tells of
every tenant's work.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from torchpruner_service.observability.metrics import MEDIA_TYPE, render

if TYPE_CHECKING:
    from torchpruner_service.api.app_state import AppState


@contextlib.asynccontextmanager
async def metrics_port(state: AppState) -> AsyncIterator[None]:
    """Serve metrics on ``metrics_port`` of the settings while the block runs; on 0, do nothing."""
    settings = state.settings
    if not settings.metrics_port:
        yield
        return

    async def metrics(request: Request) -> Response:
        return Response(await render(state), media_type=MEDIA_TYPE)

    server = _Quiet(
        uvicorn.Config(
            Starlette(routes=[Route("/metrics", metrics)]),
            host=settings.host,
            port=settings.metrics_port,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=20,
            lifespan="off",
        )
    )
    running = asyncio.create_task(server.serve())
    try:
        yield
    finally:
        server.should_exit = True
        await running


class _Quiet(uvicorn.Server):
    """Signals are the API's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
