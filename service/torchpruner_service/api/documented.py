"""The error answers that every route may give, for OpenAPI."""

from __future__ import annotations

from typing import Any

from torchpruner_service.api.schemas import Problem
from torchpruner_service.problems import MEDIA_TYPE

_MEANINGS = {
    400: "The request is not HTTP this service understands",
    401: "A valid API key is needed",
    403: "The API key lacks a scope",
    404: "There is no such resource, or this tenant may not see it",
    405: "The resource does not take this method",
    409: "The resource is not in a state that allows this",
    412: "If-Match names what is there no more",
    413: "The body is larger than this service takes",
    415: "The body's media type is not one the route takes",
    422: "The request or the model is not valid",
    429: "Too many requests, or a quota is used up",
    503: "Redis or the object store is away; try again",
    507: "No room to store this",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route that may answer with these statuses."""
    return problems_of(400, 401, 403, 404, 405, 422, 429, 503, *statuses)


def problems_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route that answers with these statuses and no other error."""
    return {
        status: {
            "description": _MEANINGS[status],
            "model": Problem,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted(set(statuses))
    }
