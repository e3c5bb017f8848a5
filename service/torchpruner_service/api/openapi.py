"""The OpenAPI document: what FastAPI makes of the routes, with the schemas it cannot see."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from torchpruner_service.api import deprecation
from torchpruner_service.api.schemas import KnownContent, Problem

DESCRIPTION = """
Structured pruning as a shared service. Upload a network once; then ask, from anywhere, what else
must go when slices of a parameter go, what that saves, and download the pruned weights.

Errors are `application/problem+json` with a stable `type`. Long work answers 202 with `Location`;
follow it with `?wait=`, or as server-sent events at `.../events`. Lists are paged with `limit` and
`cursor`. A route that is going away is marked here, and says so in every answer for at least six
months: `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and a `Link` to its successor. `/v1` is the
current version.
"""


def describe(app: FastAPI) -> None:
    """Make ``app.openapi()`` return the complete document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=DESCRIPTION,
                routes=app.routes,
                separate_input_output_schemas=False,
            )
            schemas = document["components"]["schemas"]
            for model in (Problem, KnownContent):
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[model.__name__] = schema
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            document["info"]["license"] = {"name": "Apache 2.0", "identifier": "Apache-2.0"}
            document["servers"] = [{"url": "/", "description": "The service that shows this"}]
            _only_problem_json(document)
            _only_this_version(document)
            _defaults_in_words(document)
            _show_deprecation(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _only_problem_json(document: dict[str, Any]) -> None:
    """Errors have one media type; FastAPI adds ``application/json`` beside it."""
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation.get("responses", {}).items():
                refs = [
                    content.get("schema", {}).get("$ref", "")
                    for content in response.get("content", {}).values()
                ]
                if status[0] in "45" and any(ref.endswith("/Problem") for ref in refs):
                    schema = {"$ref": "#/components/schemas/Problem"}
                    response["content"] = {"application/problem+json": {"schema": schema}}


def _only_this_version(document: dict[str, Any]) -> None:
    """FastAPI writes what an event holds as OpenAPI 3.2 does, which generators for 3.1 do not know; and
    leaves out that a route asks for no key.

    In 3.1 some tools take the schema of a stream for the whole text, and others for each event: one
    without a type holds for both.
    """
    for path in document["paths"].values():
        for operation in path.values():
            operation.setdefault("security", [])
            for response in operation["responses"].values():
                events = response.get("content", {}).get("text/event-stream")
                if events is not None and events.pop("itemSchema", None):
                    events["schema"] = {"description": "Server-sent events, each with JSON data"}


def _defaults_in_words(document: dict[str, Any]) -> None:
    """What a request may leave out is optional, and its description tells what is taken then.

    Generators of typed clients read ``default`` as "it is always there", and would ask for all of it.
    """
    schemas = document["components"]["schemas"]
    waiting = [
        operation["requestBody"]
        for path in document["paths"].values()
        for operation in path.values()
        if "requestBody" in operation
    ]
    seen: set[str] = set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name in schemas and name not in seen:
                seen.add(name)
                waiting.append(schemas[name])
    for name in seen:
        for member in schemas[name].get("properties", {}).values():
            if "default" in member:
                default = json.dumps(member.pop("default"))
                said = member.get("description")
                member["description"] = (
                    f"{said}; default {default}" if said else f"default {default}"
                )


def _show_deprecation(document: dict[str, Any]) -> None:
    """Every answer of a deprecated route has the headers that say so."""
    for path in document["paths"].values():
        for operation in path.values():
            if operation.get("deprecated"):
                for response in operation["responses"].values():
                    response.setdefault("headers", {}).update(deprecation.HEADERS)
