"""Connections that cost nothing to open must not keep others out.

uvicorn waits for ever for the head of a connection's first request and counts such connections
against its limit, so a few thousand half-open ones are a 503 for everybody. Here a head has a
deadline and a size, and where there are as many connections as there may be, the one that has waited
longest gives way to the new one: first those without a request, then those whose request's body does
not come.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any

import structlog
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from torchpruner_service.settings import Settings

MAX_HEAD = 64 * 1024
RESERVED_FILES = 256
"""Descriptors for everything that is no connection of a client."""

YOUNG = 1.0
"""Seconds in which a new connection is given the time to send its request before others give way."""

log = structlog.get_logger(__name__)


def room_for_connections(settings: Settings) -> int:
    """How many connections there may be: what the settings say, as far as the process may open files
    (its soft limit is raised to the hard one)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + RESERVED_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    room = max(1, wanted - RESERVED_FILES)
    if room < settings.max_connections:
        log.warning("the limit of open files allows fewer connections", connections=room)
    return room


def patient_protocol(settings: Settings, room: int) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol with deadlines for heads and room for ``room`` connections."""
    base: Any = AutoHTTPProtocol

    class PatientProtocol(base):  # type: ignore[misc]
        _late: asyncio.TimerHandle | None = None
        _head = 0
        since = 0.0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.since = time.monotonic()
            self._expect_head()
            if len(self.connections) > room:
                _make_room(self.connections)

        def data_received(self, data: bytes) -> None:
            waited = self.waits
            super().data_received(data)
            if not self.waits:
                self.since = time.monotonic()
                self._got_head()
            elif not waited or self._late is None:
                self._expect_head()
            self._head = self._head + len(data) if self.waits else 0
            if self._head > MAX_HEAD:
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._got_head()
            super().connection_lost(exc)

        @property
        def waits(self) -> bool:
            """Whether no request is being answered here."""
            return self.cycle is None or bool(self.cycle.response_complete)

        @property
        def incomplete(self) -> bool:
            """Whether the rest of a request is waited for."""
            return self.waits or bool(self.cycle.more_body)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.since = time.monotonic()

        def _expect_head(self) -> None:
            self._got_head()
            self._late = self.loop.call_later(settings.request_head_timeout, self._head_is_late)

        def _got_head(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _head_is_late(self) -> None:
            self._late = None
            # Between requests uvicorn's own patience with kept connections holds.
            if self.waits and self.timeout_keep_alive_task is None:
                self.transport.abort()

    return PatientProtocol


def _make_room(connections: Any) -> None:
    now = time.monotonic()

    def rank(each: Any) -> tuple[int, float]:
        if not each.waits:
            return 1, each.since
        return (0 if now - each.since > YOUNG else 2), each.since

    waiting = [each for each in connections if each.incomplete]
    if waiting:
        first = min(waiting, key=rank)
        # It is closed a moment later; until then it must not be chosen, or counted, again.
        connections.discard(first)
        first.transport.abort()
