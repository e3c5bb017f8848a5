"""How a route says that it is going away, for at least six months before it does.

One declaration marks a route: its answers, errors included, carry ``Deprecation`` (RFC 9745),
``Sunset`` (RFC 8594) and ``Link`` to what replaces it and to the documentation, and OpenAPI shows
it as deprecated::

    @router.post("/old", **deprecated(since=..., sunset=..., successor="/v1/new"))

``torchpruner_http_requests_total`` by route tells operators who still comes that way.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

from fastapi import Depends, Request

from torchpruner_service.api.extra_headers import add_headers

NOTICE = timedelta(days=183)
DOCUMENTATION = "/docs"


def deprecated(since: datetime, sunset: datetime, successor: str) -> dict[str, Any]:
    """Return the arguments that mark a route, for its decorator.

    ``successor`` is a path of this API and may have the route's own path parameters. Raises
    ``ValueError`` where the notice is shorter than six months.
    """
    if sunset - since < NOTICE:
        raise ValueError("a route stays for at least six months after it is deprecated")
    gone = format_datetime(sunset.astimezone(UTC), usegmt=True)

    async def mark(request: Request) -> None:
        # Not checked yet, and on its way into a header.
        values = {key: quote(str(value), safe="") for key, value in request.path_params.items()}
        links = (
            f'<{successor.format(**values)}>; rel="successor-version"',
            f'<{DOCUMENTATION}>; rel="deprecation"; type="text/html"',
        )
        headers = {
            "Deprecation": f"@{int(since.timestamp())}",
            "Sunset": gone,
            "Link": ", ".join(links),
        }
        add_headers(request, headers)

    return {
        "deprecated": True,
        "dependencies": [Depends(mark)],
        "description": f"Deprecated: use `{successor}`. This spelling goes away after {gone}.",
    }


HEADERS: dict[str, Any] = {
    "Deprecation": {
        "description": "RFC 9745: since when the route is deprecated, as `@` and Unix seconds",
        "schema": {"type": "string"},
    },
    "Sunset": {
        "description": "RFC 8594: the date after which the route is gone",
        "schema": {"type": "string"},
    },
    "Link": {
        "description": "What replaces the route, and where that is documented",
        "schema": {"type": "string"},
    },
}
"""The headers of a deprecated route's answers, for OpenAPI."""
