"""The one-way stream from a sandboxed child to the work-horse.

A frame is a kind (one byte), a length (eight bytes, big-endian) and that many bytes. The reader
trusts none of it: kinds, lengths and the total are checked.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, Final

HEADER: Final = struct.Struct("!cQ")

PROGRESS: Final = b"P"
DATA: Final = b"D"
RESULT: Final = b"R"
ERROR: Final = b"E"

MAX_DATA = 8 << 20
MAX_TEXT = 1 << 20


class FrameError(Exception):
    """The child wrote something that is not a frame."""


class FrameWriter:
    """The child's end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def progress(self, stage: str, percent: float) -> None:
        self._text(PROGRESS, {"stage": stage, "percent": percent})

    def data(self, chunk: bytes | memoryview) -> None:
        """Send a piece of the task's output, of any length."""
        view = memoryview(chunk).cast("B")
        for start in range(0, len(view), MAX_DATA):
            piece = view[start : start + MAX_DATA]
            self._write(HEADER.pack(DATA, len(piece)))
            self._write(piece)

    def result(self, value: dict[str, Any]) -> None:
        self._text(RESULT, value)

    def error(self, problem: dict[str, Any]) -> None:
        self._text(ERROR, problem)

    def _text(self, kind: bytes, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self._write(HEADER.pack(kind, len(data)) + data)

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]


class FrameReader:
    """The work-horse's end: feed it bytes, take whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def frames(self) -> list[tuple[bytes, bytes]]:
        """Return the frames that are complete. Raises :class:`FrameError` on nonsense."""
        complete = []
        while len(self._buffer) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._buffer)
            limit = MAX_DATA if kind == DATA else MAX_TEXT
            if kind not in {PROGRESS, DATA, RESULT, ERROR} or length > limit:
                raise FrameError(f"a frame of kind {kind!r} and {length} bytes")
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            complete.append((kind, bytes(self._buffer[HEADER.size : end])))
            del self._buffer[:end]
        return complete
