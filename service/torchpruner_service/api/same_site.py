"""Without API keys, whoever can send a request may do everything; a web page must not be able to.

Two ways lead from a page that somebody visits to a service on their own machine. A name that its
owner suddenly resolves to 127.0.0.1 (DNS rebinding) makes the service the page's own origin: so
``Host`` must be an address, or a name that is known to be this service's. And a form or script may
send across origins without reading the answer (CSRF): so a request that changes something must not
come from another origin. With keys neither works, since a browser adds none by itself.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from fastapi import Response
from pydantic_core import to_json
from starlette.types import ASGIApp, Receive, Scope, Send

from torchpruner_service.problems import MEDIA_TYPE, Forbidden, jsonable
from torchpruner_service.settings import Settings

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class SameSite:
    """ASGI middleware for a service that asks for no keys."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._names = {settings.host.lower(), *(name.lower() for name in settings.allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._refusal(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
            return
        body = problem.to_dict() | {"request_id": scope.get("state", {}).get("request_id", "")}
        answer = Response(to_json(jsonable(body)), problem.status, media_type=MEDIA_TYPE)
        await answer(scope, receive, send)

    def _refusal(self, scope: Scope) -> Forbidden | None:
        headers = {key: value.decode("latin-1") for key, value in scope["headers"]}
        host = headers.get(b"host")
        if host is not None and not self._is_own(host):
            return Forbidden(
                f"this service asks for no keys, so it answers to addresses and to its own names "
                f"only, not to {host[:200]!r}; add the name to TORCHPRUNER_ALLOWED_HOSTS, or set "
                "TORCHPRUNER_AUTH=on",
                slug="host-not-allowed",
                title="The service does not answer to this name",
            )
        origin = headers.get(b"origin")
        other = origin is not None and _netloc(origin) != (host or "").lower()
        if scope["method"] not in SAFE and (
            other or headers.get(b"sec-fetch-site") == "cross-site"
        ):
            return Forbidden(
                f"this service asks for no keys, so pages of other origins ({(origin or '')[:200]!r}) "
                "may not change anything; send the request from a program, or set TORCHPRUNER_AUTH=on",
                slug="cross-origin",
                title="The request comes from another origin",
            )
        return None

    def _is_own(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return "*" in self._names
        return True


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
