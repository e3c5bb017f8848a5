"""Whether this process can do its work: not that it lives, but that its parts answer.

The queue is asked for a round trip: a new connection writes, and the connections that queue jobs and
answer requests must read it. They may be connected to a Redis that nobody else reaches any more
(its socket was replaced, its name leads elsewhere); they are then closed, so that the next request
finds the right one.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import redis

from torchpruner_service.problems import Problem, Unavailable
from torchpruner_service.state.job_board import JobBoard
from torchpruner_service.state.redis_clients import REDIS_ERRORS, unavailable
from torchpruner_service.storage.objects import Objects

PATIENCE = 4.0
"""Seconds that a part may take to answer."""
REMEMBERED = 3.0
"""Seconds that the object store's answer stands for the next ones: it may cost money."""

STALE = (
    "this process and new connections reached two different Redis servers, so queued jobs were seen by "
    "no worker; it has connected anew"
)


class Readiness:
    """Asks the parts of one API process: what a method returns is in the way, ``None`` is nothing."""

    def __init__(self, url: str, client: Any, board: JobBoard, objects: Objects) -> None:
        self._url = url
        self._client = client
        self._board = board
        self._objects = objects
        self._storage: str | None = None
        self._asked = -REMEMBERED
        self._asking = asyncio.Lock()

    async def of_queue(self) -> str | None:
        return await _told(self._round_trip, "Redis")

    async def of_storage(self) -> str | None:
        """Of the object store. An answer stands for :data:`REMEMBERED` seconds."""

        async def check() -> None:
            await anyio.to_thread.run_sync(self._objects.check, abandon_on_cancel=True)

        async with self._asking:
            if time.monotonic() - self._asked > REMEMBERED:
                self._storage = await _told(check, "the object store")
                self._asked = time.monotonic()
            return self._storage

    async def _round_trip(self) -> None:
        key, token = self._board.keys.probe(secrets.token_hex(8)), secrets.token_bytes(8)

        def through_the_board() -> bool:
            fresh = redis.Redis.from_url(self._url, socket_timeout=2, socket_connect_timeout=2)
            try:
                fresh.set(key, token, ex=60)
                return bool(self._board.connection.get(key) == token)
            finally:
                fresh.close()

        try:
            same = await anyio.to_thread.run_sync(through_the_board, abandon_on_cancel=True)
            same &= await self._client.get(key) == token
        except REDIS_ERRORS as error:
            raise unavailable(error) from error
        if not same:
            await anyio.to_thread.run_sync(self._board.connection.connection_pool.disconnect)
            await self._client.connection_pool.disconnect()
            raise Unavailable(STALE)
        with contextlib.suppress(*REDIS_ERRORS):
            await self._client.delete(key)


async def _told(ask: Callable[[], Awaitable[None]], what: str) -> str | None:
    """What is in the way, or ``None``."""
    try:
        with anyio.fail_after(PATIENCE):
            await ask()
    except TimeoutError:
        return f"{what} did not answer within {PATIENCE:.0f} s"
    except Problem as problem:
        return problem.detail
    return None
