"""What the client does when the network or the service falters: a real server that falters on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service.running import PATIENCE
from torchpruner_client import AsyncClient, Client, ServiceUnreachable, UnavailableError
from torchpruner_client.connection_settings import ConnectionSettings
from torchpruner_client.retrying import RetryPolicy
from torchpruner_client.steps import Fetch
from torchpruner_client.sync_driver import SyncDriver

QUICK = RetryPolicy(retries=4, first=0.01, longest=0.05)
EMPTY = b'{"items":[],"total":0,"next":null}'


@contextmanager
def server(answer: Callable[[int, bytes], bytes]) -> Iterator[str]:
    """A server that gives connection ``n`` what ``answer(n, request)`` returns, and closes it."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    stopping = threading.Event()

    def work() -> None:
        number = 0
        while not stopping.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(PATIENCE)
                with contextlib.suppress(OSError):
                    request = b""
                    while b"\r\n\r\n" not in request and (part := connection.recv(65536)):
                        request += part
                    connection.sendall(answer(number, request))
            number += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stopping.set()
        thread.join()
        listener.close()


def http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_a_503_is_tried_again_until_it_is_over() -> None:
    def answer(number: int, request: bytes) -> bytes:
        if number < 2:
            return http("503 Service Unavailable", b"{}", "Retry-After: 0")
        return http("200 OK", EMPTY, "Content-Type: application/json")

    with server(answer) as url, Client(url, retries=QUICK) as client:
        assert client.models() == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_the_service_says_is_going_away_is_told(kind: str) -> None:
    def answer(number: int, request: bytes) -> bytes:
        gone = "Sunset: Sat, 01 Jan 2028 00:00:00 GMT"
        return http("200 OK", EMPTY, "Deprecation: @1767225600", gone)

    async def ask(url: str) -> None:
        async with AsyncClient(url, retries=QUICK) as client:
            await client.models()

    with server(answer) as url, pytest.warns(FutureWarning, match=r"GET /v1/models after Sat, 01"):
        if kind == "async":
            asyncio.run(ask(url))
        else:
            with Client(url, retries=QUICK) as client:
                client.models()


def test_a_503_that_lasts_is_raised() -> None:
    body = b'{"type":"unavailable","title":"away","detail":"Redis does not answer"}'
    with (
        server(lambda number, request: http("503 Service Unavailable", body)) as url,
        Client(url, retries=QUICK) as client,
        pytest.raises(UnavailableError) as caught,
    ):
        client.models()
    assert caught.value.code == "unavailable"


def test_a_connection_that_breaks_is_made_again() -> None:
    def answer(number: int, request: bytes) -> bytes:
        return b"" if number < 3 else http("200 OK", EMPTY, "Content-Type: application/json")

    with server(answer) as url, Client(url, retries=QUICK) as client:
        assert client.models() == []


def test_connections_that_always_break_are_given_up() -> None:
    with (
        server(lambda number, request: b"") as url,
        Client(url, retries=QUICK) as client,
        pytest.raises(ServiceUnreachable),
    ):
        client.models()


def test_a_download_goes_on_where_it_broke(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40
    seen: list[str] = []

    def answer(number: int, request: bytes) -> bytes:
        text = request.decode().lower()
        start = int(text.partition("range: bytes=")[2].partition("-")[0] or 0)
        seen.append(f"{start}")
        status = "206 Partial Content" if start else "200 OK"
        whole = http(status, content[start:], 'ETag: "abc"')
        return whole[: len(whole) - len(content[start:]) + 3000] if number < 3 else whole

    with server(answer) as url:
        driver = SyncDriver(ConnectionSettings.of(url, None, None, QUICK), None)
        target = tmp_path / "file"

        def flow():  # type: ignore[no-untyped-def]
            return (yield Fetch("/x", target, lambda done, total: None))

        assert driver.run(flow()) == hashlib.sha256(content).hexdigest()
        driver.close()
    assert target.read_bytes() == content
    assert seen == ["0", "3000", "6000", "9000"]
