"""Headers that belong to every answer of a request, whichever handler or error makes it."""

from __future__ import annotations

from fastapi import Request


def add_headers(request: Request, headers: dict[str, str]) -> None:
    """Have the middleware add ``headers`` to the answer, unless it has its own."""
    known: dict[str, str] = getattr(request.state, "extra_headers", {})
    request.state.extra_headers = {**known, **headers}
