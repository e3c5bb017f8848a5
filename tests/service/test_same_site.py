"""A page in a browser reaches neither a service without keys nor anybody's metrics."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.service.running import RunningService, running_service, unused_port
from tests.service.test_access import caller, keys


@pytest.fixture(scope="module")
def open_service() -> Iterator[RunningService]:
    with running_service(ready=False, TORCHPRUNER_ALLOWED_HOSTS='["pruner.internal"]') as running:
        yield running


def port(service: RunningService) -> int:
    found = httpx.URL(service.url).port
    assert found is not None
    return found


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_a_rebound_name_gets_nothing(open_service: RunningService, host: str) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/uploads"), ("GET", "/metrics")):
        answer = open_service.client.request(method, path, headers={"Host": host})
        assert (answer.status_code, answer.json()["type"]) == (403, "host-not-allowed")


@pytest.mark.parametrize(
    "name", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "pruner.internal"]
)
def test_its_own_names_and_addresses_work(open_service: RunningService, name: str) -> None:
    for host in (name, f"{name}:{port(open_service)}"):
        assert open_service.client.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_origins_change_nothing(
    open_service: RunningService, headers: dict[str, str]
) -> None:
    # As a form or a script sends it without asking first.
    plain = {"Content-Type": "text/plain", **headers}
    for method, path in (("POST", "/v1/models"), ("DELETE", "/v1/models/m" + "a" * 26)):
        answer = open_service.client.request(method, path, content=b"{}", headers=plain)
        assert (answer.status_code, answer.json()["type"]) == (403, "cross-origin")


def test_its_own_pages_and_programs_may(open_service: RunningService) -> None:
    own = {"Origin": open_service.url}
    for headers in (own, {}):
        answer = open_service.client.post("/v1/uploads", json={"length": 3}, headers=headers)
        assert answer.status_code == 201


def test_metrics_ask_for_a_key_of_their_own_or_have_a_port_of_their_own() -> None:
    number = unused_port()
    with running_service(
        ready=False, TORCHPRUNER_AUTH="on", TORCHPRUNER_METRICS_PORT=str(number)
    ) as service:
        assert service.client.get("/metrics").status_code == 401
        tenant = caller(service, keys(service, "create"))
        assert tenant.get("/metrics").status_code == 403
        reader = caller(service, keys(service, "create", "--scopes", "metrics"))
        assert "torchpruner_http_requests_total" in reader.get("/metrics").text
        assert reader.get("/v1/models").status_code == 403
        beside = httpx.get(f"http://127.0.0.1:{number}/metrics")
        assert "torchpruner_http_requests_total" in beside.text
        assert httpx.get(f"http://127.0.0.1:{number}/v1/models").status_code == 404
