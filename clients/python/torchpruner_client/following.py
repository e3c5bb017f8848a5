"""Events of a job over as many connections as it takes; both drivers feed it."""

from __future__ import annotations

import time
from typing import Any

import httpx

from torchpruner_client.event_stream import EventReader
from torchpruner_client.patience import Patience
from torchpruner_client.steps import Watch
from torchpruner_client.waiting import check

LIVED = 10.0
"""A connection that brought events for so many seconds was a good one: proxies end them in time."""


class StreamEnded(httpx.TransportError):
    """The stream ended before the job did."""


class Following:
    """Feed it lines until one of them returns the data of the event named ``end``.

    News is progress, and so is a connection that lived for :data:`LIVED` seconds; a stream that says
    the same and ends, again and again, is given up.
    """

    def __init__(self, watch: Watch, patience: Patience) -> None:
        self._watch = watch
        self._patience = patience
        self._deadline = None if watch.timeout is None else time.monotonic() + watch.timeout
        self._reader = EventReader()
        self._opened = 0.0
        self._last: dict[str, Any] | None = None

    def begin(self) -> None:
        """A new connection is open."""
        self._reader, self._opened = EventReader(), time.monotonic()

    def line(self, text: str) -> dict[str, Any] | None:
        """Raises ``TimeoutError`` past the watch's deadline, ``StreamEnded`` where an event does not
        read."""
        check(self._deadline, self._watch)
        try:
            found = self._reader.line(text)
        except ValueError as error:
            raise StreamEnded(f"an event is damaged: {error}") from error
        if found is None:
            return None
        name, data = found
        if data != self._last or time.monotonic() - self._opened > LIVED:
            self._patience.progressed()
        self._last = data
        self._watch.on_event(data)
        return data if name == "end" else None

    def broke(self, error: Exception | None = None) -> float:
        """Seconds to wait before the next try. Raises ``ServiceUnreachable`` after too many."""
        check(self._deadline, self._watch)
        ended = StreamEnded(f"{self._watch.path} ends before the job does")
        return self._patience.after_error(error or ended)

    def refused(self, answer: httpx.Response) -> float:
        """The same for a read answer of 400 or more."""
        check(self._deadline, self._watch)
        return self._patience.after_refusal(answer)
