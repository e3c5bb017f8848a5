"""Tells the user when the service says that what this client asks for is going away."""

from __future__ import annotations

import warnings

import httpx


def warn_if_deprecated(response: httpx.Response) -> None:
    """Warn once a place where an answer carries ``Deprecation`` (RFC 9745)."""
    if "deprecation" not in response.headers:
        return
    request, gone = response.request, response.headers.get("sunset")
    warnings.warn(
        f"the service will stop answering {request.method} {request.url.path}"
        f"{f' after {gone}' if gone else ''}: install a newer torchpruner-service here",
        FutureWarning,
        stacklevel=2,
    )
