"""Turns every exception into ``application/problem+json``, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from torchpruner_core.errors import TorchPrunerError
from torchpruner_service.problems import MEDIA_TYPE, Problem, jsonable, problem_of
from torchpruner_service.state.redis_clients import unavailable
from torchpruner_service.storage.store_errors import NO_ROOM, full

log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Register the handlers on ``app``."""

    @app.exception_handler(Problem)
    async def on_problem(request: Request, error: Problem) -> Response:
        return _answer(request, error.to_dict(), error.headers)

    @app.exception_handler(TorchPrunerError)
    async def on_core_error(request: Request, error: TorchPrunerError) -> Response:
        return _answer(request, problem_of(error), {})

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        return _answer(request, _validation(error), {})

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        slugs = {
            400: "bad-request",
            404: "not-found",
            405: "method-not-allowed",
            408: "request-timeout",
            413: "too-large",
        }
        body = {
            "type": slugs.get(error.status_code, "http-error"),
            "title": str(error.detail),
            "status": error.status_code,
            "detail": f"{error.detail}: {request.method} {request.url.path}; see /docs",
        }
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers = {"Allow": ", ".join(allowed_methods(request))}
        return _answer(request, body, headers)

    @app.exception_handler(Exception)
    async def on_unforeseen(request: Request, error: Exception) -> Response:
        problem = known_trouble(error)
        if problem is not None:
            return _answer(request, problem.to_dict(), problem.headers)
        log.exception("request failed", path=request.url.path)
        return _answer(request, problem_of(error), {})


def known_trouble(error: Exception) -> Problem | None:
    """The problem that an error of the machine or of Redis stands for."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return full(None, "a disk of the service", error.errno)
    if isinstance(error, (RedisError, ConnectionError, TimeoutError)):
        return unavailable(error)
    return None


def allowed_methods(request: Request) -> list[str]:
    """Every method that some route takes at the request's path."""
    found: set[str] = set()
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            found.add(method)
    return sorted(found)


def _answer(request: Request, body: dict[str, Any], headers: dict[str, str]) -> Response:
    body = {**body, "request_id": getattr(request.state, "request_id", "")}
    return Response(to_json(jsonable(body)), body["status"], headers, media_type=MEDIA_TYPE)


def _of_nearest_form(errors: Sequence[Any]) -> list[Any]:
    """Return the errors of the form that fits best, where a body may have one of several forms.

    pydantic lists the errors against each, under the form's class name, which a caller never sees.
    """
    by_form: dict[str, list[Any]] = {}
    others = []
    for item in errors:
        where = item["loc"]
        if len(where) > 1 and where[0] == "body" and str(where[1])[:1].isupper():
            plain = {**item, "loc": (where[0], *where[2:])}
            by_form.setdefault(str(where[1]), []).append(plain)
        else:
            others.append(item)
    return others + min(by_form.values(), key=len, default=[])


UNKNOWN_FIELD = "there is no field of this name here; /docs lists the fields of each request"


def _validation(error: RequestValidationError) -> dict[str, Any]:
    found = [
        {
            "at": ".".join(map(str, item["loc"])),
            "message": UNKNOWN_FIELD if item["type"] == "extra_forbidden" else item["msg"],
        }
        for item in _of_nearest_form(error.errors())[:20]
    ]
    first = found[0] if found else {"at": "the request", "message": "it does not parse"}
    return {
        "type": "invalid-request",
        "title": "The request is not valid",
        "status": 422,
        "detail": f"{first['at']}: {first['message']}",
        "errors": found,
    }
