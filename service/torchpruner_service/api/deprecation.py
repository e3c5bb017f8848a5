"""How a route says that it is going away, for at least six months before it does.

``Deprecation`` is RFC 9745, ``Sunset`` RFC 8594; the successor is linked. Use it as
``@router.get(..., deprecated=True, dependencies=[deprecated(...)])``, which OpenAPI shows too.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from fastapi import Depends, Request

from torchpruner_service.api.extra_headers import add_headers

NOTICE = timedelta(days=183)


def deprecated(since: datetime, sunset: datetime, successor: str) -> Any:
    """Return a dependency that marks the answers of a route.

    Raises ``ValueError`` where the notice is shorter than six months.
    """
    if sunset - since < NOTICE:
        raise ValueError("a route stays for at least six months after it is deprecated")
    headers = {
        "Deprecation": f"@{int(since.timestamp())}",
        "Sunset": format_datetime(sunset.astimezone(UTC), usegmt=True),
        "Link": f'<{successor}>; rel="successor-version"',
    }

    async def mark(request: Request) -> None:
        add_headers(request, headers)

    return Depends(mark)
