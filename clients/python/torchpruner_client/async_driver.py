"""Drives operations with asyncio (through httpx, so trio works too)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import httpx

from torchpruner_client.connection_settings import ConnectionSettings
from torchpruner_client.deprecation import warn_if_deprecated
from torchpruner_client.download_target import opened
from torchpruner_client.errors import error_of
from torchpruner_client.event_stream import EventReader
from torchpruner_client.steps import Body, Call, Fetch, Flow, Step, Watch
from torchpruner_client.waiting import check, unreachable

T = TypeVar("T")


class AsyncDriver:
    """Runs :data:`Flow` generators over one ``httpx.AsyncClient`` for each event loop.

    Open connections belong to the loop that made them; a client that outlives one ``asyncio.run``
    makes its own in the next.
    """

    def __init__(
        self, settings: ConnectionSettings, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._loop: object = None
        self._client: httpx.AsyncClient | None = None

    @property
    def _http(self) -> httpx.AsyncClient:
        loop = anyio.lowlevel.current_token()
        if self._client is None or self._loop != loop:
            # The other loop's connections cannot be closed from here: they go with it.
            self._loop = loop
            self._client = httpx.AsyncClient(
                base_url=self._settings.url,
                headers=self._settings.headers(),
                timeout=self._settings.timeout,
                transport=self._transport,
            )
        return self._client

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._loop == anyio.lowlevel.current_token():
            await client.aclose()

    async def run(self, flow: Flow[T]) -> T:
        """Take each step of ``flow`` and return its value; errors are raised inside it first."""
        try:
            step = next(flow)
            while True:
                try:
                    value = await self._take(step)
                except Exception as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(value)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _take(self, step: Step) -> Any:
        if isinstance(step, Call):
            return await self._call(step)
        if isinstance(step, Watch):
            return await self._watch(step)
        return await self._fetch(step)

    async def _call(self, call: Call) -> httpx.Response:
        policy = self._settings.retries
        number = 0
        while True:
            number += 1
            try:
                content = _chunks(call.body) if call.body is not None else None
                options = self._settings.request_options(call)
                response = await self._http.request(
                    call.method, call.path, content=content, **options
                )
            except httpx.TransportError as error:
                if not call.retry or number > policy.retries:
                    raise unreachable(self._settings.url, error) from error
                await anyio.sleep(policy.wait(number))
                continue
            wait = policy.wait_after(response, number)
            if wait is not None:
                await anyio.sleep(wait)
                continue
            if response.status_code >= 400 and response.status_code not in call.accept:
                raise error_of(response)
            warn_if_deprecated(response)
            return response

    async def _watch(self, watch: Watch) -> dict[str, Any]:
        policy = self._settings.retries
        deadline = None if watch.timeout is None else time.monotonic() + watch.timeout
        number = 0
        while True:
            try:
                async with self._http.stream(
                    "GET", watch.path, timeout=httpx.Timeout(30.0, connect=5.0)
                ) as answer:
                    if answer.status_code >= 400:
                        await answer.aread()
                        raise error_of(answer)
                    reader = EventReader()
                    async for line in answer.aiter_lines():
                        check(deadline, watch)
                        found = reader.line(line)
                        if found is None:
                            continue
                        number = 0
                        watch.on_event(found[1])
                        if found[0] == "end":
                            return found[1]
            except httpx.TransportError as error:
                number += 1
                if number > policy.retries:
                    raise unreachable(self._settings.url, error) from error
            check(deadline, watch)
            await anyio.sleep(policy.wait(max(1, number)))

    async def _fetch(self, fetch: Fetch) -> str:
        policy = self._settings.retries
        hasher = hashlib.sha256()
        done, number, etag = 0, 0, ""
        with opened(fetch.target) as file:
            while True:
                headers = {"Range": f"bytes={done}-", "If-Range": etag} if done else {}
                try:
                    async with self._http.stream("GET", fetch.path, headers=headers) as answer:
                        if answer.status_code >= 400:
                            await answer.aread()
                            raise error_of(answer)
                        if answer.status_code != 206 and done:
                            file.seek(0)
                            file.truncate()
                            hasher, done = hashlib.sha256(), 0
                        etag = answer.headers.get("etag", "")
                        total = done + int(answer.headers.get("content-length", 0))
                        async for chunk in answer.aiter_bytes():
                            file.write(chunk)
                            hasher.update(chunk)
                            done += len(chunk)
                            number = 0
                            fetch.on_received(done, total)
                    return hasher.hexdigest()
                except httpx.TransportError as error:
                    number += 1
                    if number > policy.retries:
                        raise unreachable(self._settings.url, error) from error
                    await anyio.sleep(policy.wait(number))


async def _chunks(body: Body) -> AsyncIterator[bytes]:
    for chunk in body.chunks():
        yield chunk
