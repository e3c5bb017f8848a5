"""The contract: a committed OpenAPI document, examples that are true, answers that keep to it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.running import PATIENCE, RunningService
from torchpruner_service.api.deprecation import deprecated

COMMITTED = Path(__file__).parents[2] / "service" / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "torchpruner_service.cli", "openapi"],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_committed_document_is_the_served_one(
    document: dict[str, Any], service: RunningService
) -> None:
    committed = json.loads(COMMITTED.read_text())
    assert committed == document, (
        "the API changed: look at the difference, say it in the changelog, then run "
        "`torchpruner-service openapi > service/openapi.json`"
    )
    assert service.client.get("/openapi.json").json() == document


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


def test_every_route_is_described(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    for path, method, operation in operations(document):
        assert operation.get("summary"), (path, method)
        if path.startswith("/v1"):
            errors = [status for status in operation["responses"] if status[0] in "45"]
            assert {"401", "404", "422"} <= set(errors), (path, method)
            for status in errors:
                content = operation["responses"][status]["content"]
                assert set(content) == {"application/problem+json"}, (path, method, status)


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    def has_example(schema: dict[str, Any]) -> bool:
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        if schema.get("examples") or schema.get("example"):
            return True
        return any(has_example(part) for part in schema.get("anyOf", []))

    for path, method, operation in operations(document):
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            if kind == "application/json":
                assert content.get("examples") or has_example(content["schema"]), (path, method)


def test_every_version_of_the_api_is_in_the_path(document: dict[str, Any]) -> None:
    outside = {path for path in document["paths"] if not path.startswith("/v1")}
    assert outside == {"/healthz", "/readyz", "/metrics"}


def test_a_route_that_goes_away_says_so_in_every_answer(
    service: RunningService, model_id: str
) -> None:
    body = {"node": "self.conv1.weight", "index": [0]}
    old = service.client.post(f"/v1/models/{model_id}/cut_analysis", json=body)
    new = service.client.post(f"/v1/models/{model_id}/cut-analysis", json=body)
    assert (old.status_code, old.json()) == (200, new.json())
    since = int(old.headers["deprecation"].removeprefix("@"))
    sunset = parsedate_to_datetime(old.headers["sunset"])
    assert sunset - datetime.fromtimestamp(since, UTC) >= timedelta(days=183)
    successor, documentation = old.headers["link"].split(", ")
    assert successor == f'</v1/models/{model_id}/cut-analysis>; rel="successor-version"'
    assert documentation == '</docs>; rel="deprecation"; type="text/html"'
    assert not {"deprecation", "sunset", "link"} & new.headers.keys()
    for refused in (
        service.client.post(f"/v1/models/{model_id}/cut_analysis", content=b"{"),
        service.client.post("/v1/models/m%0Aset-cookie:%20a%3E/cut_analysis", json=body),
    ):
        assert refused.status_code in (404, 422), refused.text
        assert refused.headers["deprecation"] == old.headers["deprecation"]
        assert "set-cookie" not in refused.headers


def test_openapi_marks_what_goes_away_and_what_replaces_it(document: dict[str, Any]) -> None:
    marked = [
        (path, operation)
        for path, _, operation in operations(document)
        if operation.get("deprecated")
    ]
    assert [path for path, _ in marked] == ["/v1/models/{model}/cut_analysis"]
    for _, operation in marked:
        for response in operation["responses"].values():
            assert {"Deprecation", "Sunset", "Link"} <= response["headers"].keys()
        assert any(f"`{path}`" in operation["description"] for path in document["paths"])


def test_a_route_cannot_go_away_at_short_notice() -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="six months"):
        deprecated(since, since + timedelta(days=30), "/v2/things")


def test_methods_that_a_route_lacks_are_405(service: RunningService) -> None:
    answer = service.client.put("/v1/models")
    assert answer.status_code == 405 and "GET" in answer.headers["allow"]
    assert answer.json()["type"] == "method-not-allowed"


def test_a_json_body_has_a_limit(service: RunningService, model_id: str) -> None:
    index = ",".join(["1"] * (33 << 20))
    answer = httpx.post(
        f"{service.url}/v1/models/{model_id}/cut-analysis",
        content=f'{{"node": "self.conv1.weight", "index": [{index}]}}',
        headers={"Content-Type": "application/json"},
        timeout=PATIENCE,
    )
    assert (answer.status_code, answer.json()["type"]) == (413, "too-large")
