"""What an operation asks of the network, without saying how.

An operation is a generator: it yields steps and is sent what came of each. The sync and the async
client are two short drivers of the same generators, so there is one implementation of everything.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes to send, which can be sent again: a part of a file, or bytes in memory."""

    source: Path | bytes | memoryview
    start: int
    end: int
    on_sent: Callable[[int], None] = field(default=lambda count: None)
    """Called with the number of bytes of this body that are on their way."""

    def __len__(self) -> int:
        return self.end - self.start

    def chunks(self) -> Iterator[bytes]:
        sent = 0
        self.on_sent(0)
        if isinstance(self.source, Path):
            with self.source.open("rb") as file:
                file.seek(self.start)
                while sent < len(self):
                    piece = file.read(min(CHUNK, len(self) - sent))
                    if not piece:
                        return
                    yield piece
                    sent += len(piece)
                    self.on_sent(sent)
            return
        view = memoryview(self.source)[self.start : self.end]
        for position in range(0, len(view), CHUNK):
            piece = bytes(view[position : position + CHUNK])
            yield piece
            sent += len(piece)
            self.on_sent(sent)


@dataclass(frozen=True, slots=True)
class Call:
    """One request; the generator is sent its response. Statuses of 400 and more raise, but for
    ``accept``."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    accept: frozenset[int] = frozenset()
    timeout: float | None = None
    retry: bool = True


@dataclass(frozen=True, slots=True)
class Watch:
    """Follow server-sent events until one named ``end``; the generator is sent that one's data.

    ``on_event`` is called with the data of each. A connection that breaks is made again.
    """

    path: str
    on_event: Callable[[dict[str, Any]], None]
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Fetch:
    """Download into ``target``; a connection that breaks goes on where it broke. Sent the sha256
    (hex)."""

    path: str
    target: Path
    on_received: Callable[[int, int], None]


Step = Call | Watch | Fetch
Flow = Generator[Step, Any, T]
