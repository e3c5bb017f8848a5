"""Schemathesis asks the live service whatever its OpenAPI document allows, and what it does not."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.service.running import RunningService

EXAMPLES = 12


@pytest.fixture
def schema(service: RunningService, model_id: str) -> schemathesis.BaseSchema:
    loaded = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    return loaded


lazy = schemathesis.pytest.from_fixture("schema")


@lazy.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_no_request_breaks_the_contract(case: schemathesis.Case, model_id: str) -> None:
    # Ids are opaque: a generated one is nearly always a 404, so every other case asks of a real model.
    if "model" in case.path_parameters and len(str(case.query)) % 2:
        case.path_parameters["model"] = model_id
    if case.path.endswith("/events"):
        case.headers = {**(case.headers or {}), "Accept": "text/event-stream"}
    response = case.call(timeout=60)
    case.validate_response(
        response,
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_headers_conformance,
            response_schema_conformance,
        ],
    )
