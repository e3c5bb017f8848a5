"""Logs, metrics and traces: one id from the client to the work-horse."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.types import Message, Receive, Scope, Send

from tests.service.models import small_file
from tests.service.running import RunningService, running_service, until
from torchpruner_service.api.middleware import Observed


def json_lines(service: RunningService) -> list[dict[str, Any]]:
    found = []
    for line in service.log().splitlines():
        if line.startswith("{"):
            found.append(json.loads(line))
    return found


def test_every_log_line_is_json(service: RunningService, model_id: str) -> None:
    lines = service.log().splitlines()
    other = [
        line
        for line in lines
        if not line.startswith(("{", "torchpruner-service:")) and line.strip()
    ]
    assert not other
    assert {"event", "level", "timestamp"} <= set(json_lines(service)[0])


def test_a_request_id_goes_from_the_caller_to_the_job(service: RunningService) -> None:
    answer = service.client.post(
        "/v1/models",
        params={"input": "x:1x3x8x8"},
        content=small_file(1201).content,
        headers={"X-Request-Id": "from-the-caller-1"},
    )
    assert answer.headers["x-request-id"] == "from-the-caller-1"
    service.wait_model(answer.json()["id"])
    with_id = [
        line for line in json_lines(service) if line.get("request_id") == "from-the-caller-1"
    ]
    events = {line["event"] for line in with_id}
    assert {"request", "job started", "job ended"} <= events
    ended = next(line for line in with_id if line["event"] == "job ended")
    assert ended["state"] == "ready" and ended["stages"]["exporting"] > 0


def test_a_request_id_that_could_break_a_log_is_replaced(service: RunningService) -> None:
    answer = service.client.get("/v1/models", headers={"X-Request-Id": 'a"} {"x": "y' * 20})
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])


def test_a_problem_names_its_request(service: RunningService) -> None:
    answer = service.client.get("/v1/models/nope")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_metrics_are_labelled_by_route_template(service: RunningService, model_id: str) -> None:
    service.cut(model_id, "self.conv1.weight", [0])
    service.client.get("/no/such/route")
    text = service.client.get("/metrics").text
    route = 'method="POST",route="/v1/models/{model}/cut-analysis",status="200"'
    assert f"torchpruner_http_requests_total{{{route}}} " in text
    assert 'route="unmatched"' in text and "/no/such" not in text and model_id not in text
    for name in (
        "torchpruner_http_request_seconds_bucket",
        "torchpruner_cut_analysis_seconds_count",
        "torchpruner_graph_cache_hits",
        "torchpruner_graph_cache_misses",
        "torchpruner_uploaded_bytes_total",
        "torchpruner_downloaded_bytes_total",
        'torchpruner_queue_depth{queue="build"}',
        "torchpruner_workers 1.0",
        'torchpruner_jobs_total{kind="build",state="ready"}',
        'torchpruner_job_seconds_bucket{kind="build",le="1.0",stage="exporting"}',
    ):
        assert name in text, name


class Collector(BaseHTTPRequestHandler):
    spans: list[Any]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


def test_a_trace_goes_from_the_client_through_the_api_to_the_worker() -> None:
    class Own(Collector):
        pass

    Own.spans = []

    server = HTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    trace = "0af7651916cd43dd8448eb211c80319c"
    try:
        with running_service(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
            OTEL_BSP_SCHEDULE_DELAY="200",
        ) as service:
            service.upload(
                small_file(1202).content,
                "x:1x3x8x8",
                headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"},
            )

            def names() -> set[str]:
                return {span.name for span in list(Own.spans) if span.trace_id.hex() == trace}

            until(lambda: {"POST /v1/models", "job build"} <= names())
    finally:
        server.shutdown()
        server.server_close()


def test_who_is_cut_off_by_a_stop_is_told_to_come_again() -> None:
    async def ask() -> list[Message]:
        sent: list[Message] = []
        waiting = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            waiting.set()
            await asyncio.Event().wait()

        async def receive() -> Message:
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/models", "headers": []}
        task = asyncio.ensure_future(Observed(app, 10.0)(scope, receive, send))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return sent

    start, body = asyncio.run(ask())
    headers = dict(start["headers"])
    assert start["status"] == 503
    assert headers[b"content-type"] == b"application/problem+json"
    assert int(headers[b"retry-after"]) > 0
    assert json.loads(body["body"])["type"] == "unavailable"
