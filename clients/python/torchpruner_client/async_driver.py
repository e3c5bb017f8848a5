"""Drives operations with asyncio (through httpx, so trio works too)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import httpx

from torchpruner_client.connection_settings import STREAM_TIMEOUT, ConnectionSettings
from torchpruner_client.deprecation import warn_if_deprecated
from torchpruner_client.download_target import opened
from torchpruner_client.errors import error_of
from torchpruner_client.following import Following
from torchpruner_client.patience import Patience
from torchpruner_client.steps import Body, Call, Fetch, Flow, Step, Watch
from torchpruner_client.transfer import Transfer
from torchpruner_client.waiting import unreachable

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
        following = Following(watch, self._patience())
        while True:
            try:
                async with self._http.stream("GET", watch.path, timeout=STREAM_TIMEOUT) as answer:
                    if answer.status_code >= 400:
                        await answer.aread()
                        wait = following.refused(answer)
                    else:
                        following.begin()
                        async for line in answer.aiter_lines():
                            ended = following.line(line)
                            if ended is not None:
                                return ended
                        wait = following.broke()
            except httpx.TransportError as error:
                wait = following.broke(error)
            await anyio.sleep(wait)

    async def _fetch(self, fetch: Fetch) -> str:
        with opened(fetch.target) as file:
            transfer = Transfer(fetch, file, self._patience())
            while True:
                try:
                    async with self._http.stream(
                        "GET", fetch.path, headers=transfer.headers()
                    ) as answer:
                        if answer.status_code >= 400:
                            await answer.aread()
                            wait = transfer.refused(answer)
                        else:
                            transfer.begin(answer)
                            async for chunk in answer.aiter_bytes():
                                transfer.take(chunk)
                            return transfer.digest()
                except httpx.TransportError as error:
                    wait = transfer.broke(error)
                await anyio.sleep(wait)

    def _patience(self) -> Patience:
        return Patience(self._settings.retries, self._settings.url)


async def _chunks(body: Body) -> AsyncIterator[bytes]:
    for chunk in body.chunks():
        yield chunk
