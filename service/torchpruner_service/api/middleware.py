"""Around every request: an id, a log line, metrics by route template, a trace, a limit on JSON
bodies."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from typing import Any

import structlog
from pydantic_core import to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torchpruner_service.observability.metrics import REQUEST_SECONDS, REQUESTS
from torchpruner_service.observability.tracing import request_span
from torchpruner_service.problems import MEDIA_TYPE, Unavailable

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_AGAIN = {"retry-after": "5"}
_QUIET = {"/healthz", "/readyz", "/metrics"}

log = structlog.get_logger("torchpruner_service.access")


async def _stopping(send: Send, identifier: str) -> None:
    problem = Unavailable("the service is stopping; send the request again", headers=_AGAIN)
    body = to_json({**problem.to_dict(), "request_id": identifier})
    headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), "connection": "close"}
    await send(
        {
            "type": "http.response.start",
            "status": problem.status,
            "headers": [(k.lower().encode(), v.encode()) for k, v in (headers | _AGAIN).items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


class Observed:
    """ASGI middleware; bodies stream through it untouched."""

    def __init__(self, app: ASGIApp, send_timeout: float) -> None:
        self._app = app
        self._send_timeout = send_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1").lower(): value.decode("latin-1")
            for key, value in scope["headers"]
        }
        given = headers.get("x-request-id", "")
        identifier = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = identifier
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=identifier)
        started = time.perf_counter()
        status, answered = 500, False

        async def tagged(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                extra = {"x-request-id": identifier, **scope["state"].get("extra_headers", {})}
                present = {key.lower() for key, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (key.lower().encode(), value.encode())
                        for key, value in extra.items()
                        if key.lower().encode() not in present
                    ),
                ]
            # A receiver that takes nothing would hold the request, and what it holds, for ever.
            async with asyncio.timeout(self._send_timeout):
                await send(message)

        with request_span(f"{scope['method']} {scope['path']}", headers) as span:
            try:
                await self._app(scope, receive, tagged)
            except asyncio.CancelledError:
                # The server stops, and its patience with what runs is at an end.
                if not answered:
                    await _stopping(tagged, identifier)
                raise
            finally:
                self._note(scope, status, time.perf_counter() - started, span)

    def _note(self, scope: Scope, status: int, seconds: float, span: Any) -> None:
        route = getattr(scope.get("route"), "path", None) or "unmatched"
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        REQUESTS.labels(method, route, str(status)).inc()
        REQUEST_SECONDS.labels(method, route).observe(seconds)
        if span is not None:
            span.update_name(f"{method} {route}")
            span.set_attribute("http.response.status_code", status)
        if scope["path"] not in _QUIET:
            log.info(
                "request",
                method=method,
                route=route,
                path=scope["path"],
                status=status,
                ms=round(seconds * 1e3, 2),
                tenant=scope["state"].get("tenant"),
            )


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
