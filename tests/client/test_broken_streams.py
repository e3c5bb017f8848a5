"""Downloads and events over proxies that refuse, cut off, begin again and end too early."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.client.test_retries import QUICK, http, server
from torchpruner_client import ServiceUnreachable, UnavailableError
from torchpruner_client.async_driver import AsyncDriver
from torchpruner_client.connection_settings import ConnectionSettings
from torchpruner_client.steps import Fetch, Flow, Step, Watch
from torchpruner_client.sync_driver import SyncDriver

CONTENT = bytes(range(256)) * 40
Drive = Callable[[str, Step], Any]


@pytest.fixture(params=["sync", "async"])
def drive(request: pytest.FixtureRequest) -> Drive:
    """Takes one step against a server, with either client."""

    def flow(step: Step) -> Flow[Any]:
        return (yield step)

    def take(url: str, step: Step) -> Any:
        settings = ConnectionSettings.of(url, None, None, QUICK)
        if request.param == "sync":
            driver = SyncDriver(settings, None)
            try:
                return driver.run(flow(step))
            finally:
                driver.close()

        async def main() -> Any:
            driver = AsyncDriver(settings, None)
            try:
                return await driver.run(flow(step))
            finally:
                await driver.close()

        return asyncio.run(main())

    return take


def fetch(target: Path) -> Fetch:
    return Fetch("/x", target, lambda done, total: None)


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable"])
def test_content_and_events_are_asked_for_again_after_a_refusal(
    drive: Drive, tmp_path: Path, status: str
) -> None:
    def content(number: int, request: bytes) -> bytes:
        return http(status, b"{}") if number < 2 else http("200 OK", CONTENT)

    def events(number: int, request: bytes) -> bytes:
        return http(status, b"{}") if number < 2 else http("200 OK", event("end", state="ready"))

    with server(content) as url:
        assert drive(url, fetch(tmp_path / "file")) == hashlib.sha256(CONTENT).hexdigest()
    with server(events) as url:
        assert drive(url, Watch("/e", lambda data: None, 20.0)) == {"state": "ready"}


def test_a_refusal_in_the_middle_of_a_download_is_ridden_out(drive: Drive, tmp_path: Path) -> None:
    def answer(number: int, request: bytes) -> bytes:
        if number == 0:
            return http("200 OK", CONTENT, 'ETag: "abc"')[:-5000]
        if number < 3:
            return http("503 Service Unavailable", b"{}", "Retry-After: 0")
        done = len(CONTENT) - 5000
        return http("206 Partial Content", CONTENT[done:], f"Content-Range: bytes {done}-/*")

    with server(answer) as url:
        assert drive(url, fetch(tmp_path / "file")) == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("what", ["content", "events"])
def test_a_refusal_that_lasts_is_raised_after_the_retries(
    drive: Drive, tmp_path: Path, what: str
) -> None:
    asked = []

    def answer(number: int, request: bytes) -> bytes:
        asked.append(number)
        return http("503 Service Unavailable", b'{"type":"unavailable","detail":"away"}')

    step = fetch(tmp_path / "file") if what == "content" else Watch("/e", lambda data: None, 20.0)
    with server(answer) as url, pytest.raises(UnavailableError):
        drive(url, step)
    assert len(asked) == QUICK.retries + 1


@pytest.mark.parametrize("kind", ["whole", "elsewhere", "growing"])
def test_a_proxy_that_begins_anew_each_time_is_given_up(
    drive: Drive, tmp_path: Path, kind: str
) -> None:
    asked = []

    def answer(number: int, request: bytes) -> bytes:
        asked.append(number)
        if kind == "elsewhere" and b"range: bytes=" in request.lower():
            return http("206 Partial Content", CONTENT[5:], "Content-Range: bytes 5-/*")[:-3000]
        # Cut off before the end, a little later each time.
        return http("200 OK", CONTENT)[: -3000 + (number if kind == "growing" else 0)]

    with server(answer) as url, pytest.raises(ServiceUnreachable):
        drive(url, fetch(tmp_path / "file"))
    assert len(asked) <= 2 * QUICK.retries + 2


def test_content_that_is_there_whole_and_never_ends_is_asked_for_anew(
    drive: Drive, tmp_path: Path
) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = f"{len(CONTENT):x}\r\n".encode() + CONTENT + b"\r\n"

    def answer(number: int, request: bytes) -> bytes:
        if number == 0:
            return chunked + chunk
        if b"range:" in request.lower():
            return http("416 Range Not Satisfiable", b"{}")
        return chunked + chunk + b"0\r\n\r\n"

    with server(answer) as url:
        assert drive(url, fetch(tmp_path / "file")) == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("body", [b"", event("progress", stage="queued"), b"data: {\n\n"])
def test_events_that_end_again_and_again_are_given_up(drive: Drive, body: bytes) -> None:
    asked = []

    def answer(number: int, request: bytes) -> bytes:
        asked.append(number)
        return http("200 OK", body)

    with server(answer) as url, pytest.raises(ServiceUnreachable, match=r"/e ends|damaged"):
        drive(url, Watch("/e", lambda data: None, None))
    assert len(asked) <= QUICK.retries + 2


def test_events_that_bring_news_are_followed_over_any_number_of_connections(drive: Drive) -> None:
    many = 3 * QUICK.retries

    def answer(number: int, request: bytes) -> bytes:
        name = "end" if number == many else "progress"
        return http("200 OK", event(name, percent=number))

    with server(answer) as url:
        assert drive(url, Watch("/e", lambda data: None, None)) == {"percent": many}
