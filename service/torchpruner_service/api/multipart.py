"""The file of a ``multipart/form-data`` body, streamed; the small fields beside it are kept.

A model in several files, a program and its data files, comes as several parts called ``files``, each
with its filename; they are streamed on as one zip archive, stored without compression.
"""

from __future__ import annotations

import zipfile
from collections.abc import AsyncIterator
from email.message import Message
from pathlib import PurePosixPath
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from torchpruner_service.problems import InvalidRequest

MAX_FIELD = 64 * 1024
MAX_PARTS = 20
FILE_FIELD, FILES_FIELD = "file", "files"


class _Sink:
    """What an archive is written to: pieces that are streamed on, never sought in."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


class MultipartFile:
    """Iterate over it for the bytes of the part called ``file``; ``fields`` are the others.

    Where there are parts called ``files``, the bytes are those of an archive that holds them.
    """

    def __init__(self, chunks: AsyncIterator[bytes], content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidRequest("a multipart body needs a boundary in its Content-Type")
        self.fields: dict[str, str] = {}
        self.found = False
        self._chunks = chunks
        self._out: list[bytes] = []
        self._header: list[tuple[str, str]] = []
        self._name = ""
        self._value = bytearray()
        self._key = bytearray()
        self._text = bytearray()
        self._parts = 0
        self._header_bytes = 0
        self._archive: zipfile.ZipFile | None = None
        self._member: IO[bytes] | None = None
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, a, b: self._keep(self._key, data[a:b]),
                    "on_header_value": lambda data, a, b: self._keep(self._text, data[a:b]),
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                },
            )
        except FormParserError as error:
            raise InvalidRequest(f"the multipart boundary does not do: {error}") from error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._chunks:
                self._parser.write(chunk)
                for piece in self._out:
                    yield piece
                self._out.clear()
            self._parser.finalize()
            if self._archive is not None:
                self._archive.close()
        except FormParserError as error:
            raise InvalidRequest(f"the multipart body is damaged: {error}") from error
        for piece in self._out:
            yield piece
        self._out.clear()
        if not self.found:
            raise InvalidRequest(
                f"the multipart body has no part called {FILE_FIELD!r}, nor {FILES_FIELD!r}"
            )

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"the multipart body has more than {MAX_PARTS} parts")
        self._header, self._name, self._header_bytes = [], "", 0
        self._value.clear()

    def _keep(self, into: bytearray, piece: bytes) -> None:
        self._header_bytes += len(piece)
        if self._header_bytes > MAX_FIELD:
            raise InvalidRequest(f"the headers of a part are longer than {MAX_FIELD} bytes")
        into.extend(piece)

    def _header_end(self) -> None:
        self._header.append((self._key.decode("latin-1"), self._text.decode("latin-1")))
        self._key.clear()
        self._text.clear()

    def _headers_finished(self) -> None:
        message = Message()
        for key, value in self._header:
            message[key] = value
        name = message.get_param("name", header="content-disposition")
        self._name = name if isinstance(name, str) else ""
        if self._name == FILE_FIELD:
            self._only_once(self._archive is not None or self.found)
        elif self._name == FILES_FIELD:
            self._only_once(self.found and self._archive is None)
            self._open_member(message.get_filename() or "")
        self.found |= self._name in (FILE_FIELD, FILES_FIELD)

    def _only_once(self, mixed: bool) -> None:
        if mixed:
            raise InvalidRequest(
                f"a multipart body has one part called {FILE_FIELD!r}, or all of a model's files in "
                f"parts called {FILES_FIELD!r}"
            )

    def _open_member(self, filename: str) -> None:
        """Begin the next file of the archive; its date is fixed, so that a digest tells its content."""
        path = PurePosixPath(filename)
        if not filename or path.is_absolute() or ".." in path.parts or "\\" in filename:
            raise InvalidRequest(
                f"a part called {FILES_FIELD!r} has the filename {filename[:200]!a}; it is the name "
                "that the model knows the file by, below the model's own folder"
            )
        if self._archive is None:
            sink: Any = _Sink(self._out)  # zipfile asks no more of what it writes to
            self._archive = zipfile.ZipFile(sink, "w")
        if str(path) in self._archive.namelist():
            raise InvalidRequest(f"two parts have the filename {filename[:200]!a}")
        self._member = self._archive.open(zipfile.ZipInfo(str(path)), "w", force_zip64=True)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE_FIELD:
            self._out.append(data[start:end])
            return
        if self._member is not None:
            self._member.write(data[start:end])
            return
        if len(self._value) + end - start > MAX_FIELD:
            raise InvalidRequest(f"the field {self._name!r} is longer than {MAX_FIELD} bytes")
        self._value.extend(data[start:end])

    def _end(self) -> None:
        if self._member is not None:
            self._member.close()
            self._member = None
        elif self._name and self._name != FILE_FIELD:
            self.fields[self._name] = self._value.decode("utf-8", "replace")
