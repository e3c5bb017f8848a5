"""Connections that never become requests: thousands of them are nobody else's trouble."""

from __future__ import annotations

import contextlib
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.models import small_file
from tests.service.running import (
    PATIENCE,
    RunningService,
    running_service,
    until,
    unused_port,
)

MANY = 2100
HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BODY = (
    b"POST /v1/models/mx/cut-analysis HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n{"
)


@pytest.fixture(scope="module")
def patient() -> Iterator[RunningService]:
    with running_service(
        "--workers",
        "0",
        ready=False,
        TORCHPRUNER_REQUEST_HEAD_TIMEOUT="60",
        TORCHPRUNER_BODY_TIMEOUT="60",
    ) as running:
        yield running


@contextlib.contextmanager
def half_open(url: str, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """``count`` connections that have sent the beginning of a request."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 200:
        pytest.skip("this machine does not let a process open so many files")
    if soft < count + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + 200, hard))
    target = httpx.URL(url)
    opened = []
    try:
        for _ in range(count):
            connection = socket.create_connection(
                (target.host, target.port or 80), timeout=PATIENCE
            )
            connection.sendall(sent)
            opened.append(connection)
        yield opened
    finally:
        for connection in opened:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("sent", [b"", HEAD, BODY], ids=["silent", "half a head", "half a body"])
def test_two_thousand_half_open_connections_keep_nobody_out(
    patient: RunningService, sent: bytes
) -> None:
    with half_open(patient.url, MANY, sent):
        for _ in range(20):
            answer = httpx.get(f"{patient.url}/v1/models", timeout=PATIENCE)
            assert answer.status_code == 200, answer.text
        shown = httpx.post(
            f"{patient.url}/v1/models",
            params={"input": "x:1x3x8x8"},
            content=small_file(2301).content,
            timeout=PATIENCE,
        )
        assert shown.status_code in (200, 202), shown.text


@pytest.fixture(scope="module")
def hasty() -> Iterator[RunningService]:
    with running_service(
        "--workers",
        "0",
        ready=False,
        TORCHPRUNER_REQUEST_HEAD_TIMEOUT="1",
        TORCHPRUNER_BODY_TIMEOUT="1",
        TORCHPRUNER_DOWNLOAD_IDLE_TIMEOUT="2",
    ) as running:
        yield running


@pytest.mark.parametrize("sent", [b"", HEAD])
def test_a_head_that_does_not_come_ends_the_connection(hasty: RunningService, sent: bytes) -> None:
    with half_open(hasty.url, 5, sent) as connections:
        for connection in connections:
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""


def drip(connection: socket.socket, line: bytes, pause: float) -> None:
    """Send lines until the other side has closed the connection."""
    deadline = time.monotonic() + PATIENCE
    with pytest.raises((ConnectionError, BrokenPipeError)):
        while time.monotonic() < deadline:
            connection.sendall(line)
            time.sleep(pause)


def test_a_head_that_drips_is_late_too(hasty: RunningService) -> None:
    with half_open(hasty.url, 1, HEAD) as (connection,):
        drip(connection, b"X-Drip: 1\r\n", 0.2)


def test_a_head_without_end_is_cut_off(patient: RunningService) -> None:
    with half_open(patient.url, 1, HEAD) as (connection,):
        drip(connection, b"X-Long: " + b"a" * 4000 + b"\r\n", 0.001)


def test_a_body_that_does_not_come_is_a_408(hasty: RunningService) -> None:
    with half_open(hasty.url, 1, BODY) as (connection,):
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert b" 408 " in answer.splitlines()[0] and b"request-timeout" in answer


def test_a_kept_connection_is_not_hurried(hasty: RunningService) -> None:
    with httpx.Client(base_url=hasty.url, timeout=PATIENCE) as client:
        assert client.get("/healthz").status_code == 200
        stream = next(iter(client._transport._pool.connections))  # type: ignore[attr-defined]
        time.sleep(2.5)
        assert client.get("/healthz").status_code == 200
        assert next(iter(client._transport._pool.connections)) is stream  # type: ignore[attr-defined]


TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
GATEWAY = Path(__file__).parents[2] / "deploy" / "gateway" / "nginx.conf"


@pytest.fixture
def gateway(patient: RunningService, tmp_path: Path) -> Iterator[str]:
    """The deployment's own gateway before the service; only its addresses are this test's."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    port = unused_port()
    upstream = httpx.URL(patient.url)
    text = GATEWAY.read_text()
    for ours, own in (
        ("listen 8000 ", f"listen 127.0.0.1:{port} "),
        ("server api:8000 resolve;", f"server {upstream.host}:{upstream.port};"),
        ("resolver 127.0.0.11 valid=5s;", ""),
        ("http {", "http { " + "".join(f"{kind}_temp_path {kind}; " for kind in TEMPORARY)),
    ):
        assert ours in text, ours
        text = text.replace(ours, own)
    config = tmp_path / "nginx.conf"
    config.write_text(f"pid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\n{text}")
    command = [nginx, "-p", str(tmp_path), "-c", str(config), "-g", "daemon off;"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:

        def answers() -> bool:
            assert process.poll() is None, process.stderr and process.stderr.read()
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{url}/healthz", timeout=PATIENCE).status_code == 200
            return False

        until(answers)
        yield url
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.parametrize("sent", [b"", HEAD], ids=["silent", "half a head"])
def test_the_gateway_holds_half_open_connections_away(gateway: str, sent: bytes) -> None:
    with half_open(gateway, 400, sent):
        for _ in range(10):
            assert httpx.get(f"{gateway}/v1/models", timeout=PATIENCE).status_code in (200, 429)


def test_the_gateway_streams_uploads_and_events(gateway: str) -> None:
    shown = httpx.post(
        f"{gateway}/v1/models",
        params={"input": "x:1x3x8x8"},
        content=small_file(2302).content,
        timeout=PATIENCE,
    )
    assert shown.status_code == 202, shown.text
    with httpx.stream(
        "GET", f"{gateway}{shown.headers['location']}/events", timeout=PATIENCE
    ) as events:
        assert next(events.iter_lines()).startswith("event: ")
    assert httpx.get(f"{gateway}/metrics", timeout=PATIENCE).status_code == 404


def test_the_gateway_has_a_deadline_for_all_that_a_client_may_hold() -> None:
    text = GATEWAY.read_text()
    for setting in (
        "client_header_timeout",
        "client_body_timeout",
        "send_timeout",
        "keepalive_timeout",
        "limit_conn ",
        "large_client_header_buffers",
        "reset_timedout_connection on",
        "worker_rlimit_nofile",
        "proxy_connect_timeout",
    ):
        assert setting in text, setting
