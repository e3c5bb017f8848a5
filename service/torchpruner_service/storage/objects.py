"""The object store: a local folder, S3, GCS or Azure behind one small interface.

Each method has a blocking form for workers and an ``a``-prefixed form for the API. Errors of the
store become :class:`~torchpruner_service.problems.Unavailable`, except "not found", which is
``None`` or :class:`KeyError` where a method says so.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import unquote, urlparse

import anyio.to_thread
import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from torchpruner_service.problems import Unavailable
from torchpruner_service.storage import layout
from torchpruner_service.storage.hidden_folder import hidden_folder
from torchpruner_service.storage.store_errors import NO_ROOM, BadStore, StoreErrors, full

CHUNK = 1 << 20
PROBE = "health/probe"
COPIED_AT_ONCE = 5 << 30
"""S3 copies objects of fewer bytes than this by itself."""
T = TypeVar("T")


class Objects:
    """An object store. ``local_root`` is its folder, or ``None`` where it is remote."""

    def __init__(self, url: str) -> None:
        parsed = urlparse(url)
        self.url = url
        self.local_root: Path | None = None
        if parsed.scheme in {"", "file"}:
            root = Path(unquote(parsed.path))
            try:
                root.mkdir(parents=True, exist_ok=True)
                self.local_root = hidden_folder(root)
            except OSError as error:
                raise BadStore(str(root), error.strerror or error) from error
            self._store: Any = LocalStore(prefix=self.local_root)
        else:
            # Retries are the callers' business: an API request must not hang for minutes.
            options: dict[str, Any] = {
                "retry_config": {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
            }
            if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
                options["client_options"] = {"allow_http": True}
            try:
                self._store = from_url(url, **options)
            except (BaseError, ValueError) as error:
                raise BadStore(url, _reason(error)) from error
        self._errors = StoreErrors(url, self.local_root)

    def local_path(self, key: str) -> Path | None:
        """The file behind ``key`` where the store is a folder."""
        return None if self.local_root is None else self.local_root / key

    # Blocking

    def put(self, key: str, data: bytes) -> None:
        self._errors.guard(lambda: obstore.put(self._store, key, data))

    def put_json(self, key: str, value: Any) -> None:
        self.put(key, json.dumps(value, separators=(",", ":")).encode())

    def put_file(self, key: str, path: Path) -> None:
        """Store a file and remove it from ``path``: a rename where both are on one filesystem."""
        if self._renamed(key, path):
            return
        self._errors.guard(lambda: obstore.put(self._store, key, path))
        path.unlink(missing_ok=True)

    def get(self, key: str) -> bytes | None:
        try:
            return self._errors.guard(lambda: bytes(obstore.get(self._store, key).bytes()))
        except KeyError:
            return None

    def get_json(self, key: str) -> Any | None:
        data = self.get(key)
        return None if data is None else json.loads(data)

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def size(self, key: str) -> int | None:
        try:
            return int(self._errors.guard(lambda: obstore.head(self._store, key))["size"])
        except KeyError:
            return None

    def delete(self, key: str) -> None:
        with contextlib.suppress(KeyError):
            self._errors.guard(lambda: obstore.delete(self._store, key))

    def move(self, key: str, place: str) -> bool:
        """Give an object another key; ``False`` where there is none. One step on a disk."""
        try:
            if self.local_root is None:
                self._copy(key, place)
                self.delete(key)
            else:
                self._errors.guard(lambda: obstore.rename(self._store, key, place))
        except KeyError:
            return False
        return True

    def restore(self, place: str, key: str) -> None:
        """Give an object its key back, unless there is one of that key by now."""
        try:
            if not self.exists(key):
                self._copy(place, key)
        except KeyError:
            return
        self.delete(place)

    def recover(self, key: str) -> bool:
        """Put an object back whose owner found it in the trash; whether it is there now."""
        with contextlib.suppress(KeyError):
            for place in self.keys(layout.all_discarded(key)):
                if not self.exists(key):
                    self._copy(place, key)
        return self.exists(key)

    def _copy(self, source: str, target: str) -> None:
        if self.local_root is not None or (self.size(source) or 0) < COPIED_AT_ONCE:
            self._errors.guard(lambda: obstore.copy(self._store, source, target))
            return
        stream = self._errors.guard(
            lambda: obstore.get(self._store, source).stream(min_chunk_size=8 * CHUNK)
        )
        self._errors.guard(lambda: obstore.put(self._store, target, iter(stream)))

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key under ``prefix`` (a folder, ending in ``/``)."""
        for meta in self._listed(prefix):
            yield meta["path"]

    def keys_with_times(self, prefix: str) -> Iterator[tuple[str, float]]:
        """Every key under ``prefix`` with the Unix time it was last written."""
        for meta in self._listed(prefix):
            yield meta["path"], meta["last_modified"].timestamp()

    def first_keys(
        self, prefix: str, after: str, count: int, wanted: Callable[[str], bool]
    ) -> list[str]:
        """The first ``count`` keys under ``prefix``, by name, that come after ``after`` (may be empty)
        and are ``wanted``. A remote store lists no more than it must."""
        if self.local_root is not None:
            return heapq.nsmallest(
                count, (key for key in self.keys(prefix) if key > after and wanted(key))
            )
        listed = self._listed(prefix, after or None)
        keys = (meta["path"] for meta in listed if wanted(meta["path"]))
        return list(itertools.islice(keys, count))

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object to a local file. Raises ``KeyError`` where there is none."""
        try:
            with path.open("wb") as file:
                for chunk in obstore.get(self._store, key).stream(min_chunk_size=CHUNK):
                    file.write(chunk)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise full(path.parent, "the scratch folder", error.errno) from error
            raise self._errors.translated(error) from error
        except BaseError as error:
            raise self._errors.translated(error) from error

    # For the event loop

    async def aput(self, key: str, data: bytes) -> None:
        await self._errors.aguard(lambda: obstore.put_async(self._store, key, data))

    async def aput_json(self, key: str, value: Any) -> None:
        await self.aput(key, json.dumps(value, separators=(",", ":")).encode())

    async def aput_file(self, key: str, path: Path) -> None:
        """See :meth:`put_file`."""
        if self.local_root is not None:
            await anyio.to_thread.run_sync(self.put_file, key, path)
            return
        await self._errors.aguard(lambda: obstore.put_async(self._store, key, path))
        path.unlink(missing_ok=True)

    async def aget(self, key: str) -> bytes | None:
        try:
            result = await self._errors.aguard(lambda: obstore.get_async(self._store, key))
            return bytes(await result.bytes_async())
        except (KeyError, NotFoundError, FileNotFoundError):
            return None

    async def aget_json(self, key: str) -> Any | None:
        data = await self.aget(key)
        return None if data is None else json.loads(data)

    async def asize(self, key: str) -> int | None:
        try:
            return int(
                (await self._errors.aguard(lambda: obstore.head_async(self._store, key)))["size"]
            )
        except KeyError:
            return None

    async def aexists(self, key: str) -> bool:
        return await self.asize(key) is not None

    async def adelete(self, key: str) -> None:
        with contextlib.suppress(KeyError):
            await self._errors.aguard(lambda: obstore.delete_async(self._store, key))

    async def arecover(self, key: str) -> bool:
        return await anyio.to_thread.run_sync(self.recover, key)

    async def akeys(self, prefix: str) -> list[str]:
        def listed() -> list[str]:
            return list(self.keys(prefix))

        return await anyio.to_thread.run_sync(listed)

    async def akeys_with_times(self, prefix: str) -> list[tuple[str, float]]:
        def listed() -> list[tuple[str, float]]:
            return list(self.keys_with_times(prefix))

        return await anyio.to_thread.run_sync(listed)

    async def akeys_with_sizes(self, prefix: str) -> list[tuple[str, int]]:
        """Every key under ``prefix`` with the bytes behind it."""

        def listed() -> list[tuple[str, int]]:
            return [(meta["path"], int(meta["size"])) for meta in self._listed(prefix)]

        return await anyio.to_thread.run_sync(listed)

    async def astream(self, key: str, start: int, end: int) -> AsyncIterator[bytes | memoryview]:
        """Yield bytes ``[start, end)`` of an object in chunks of about a mebibyte."""
        if end <= start:
            return
        path = self.local_path(key)
        if path is not None:
            # Ten times less work than through the store's own stream, measured.
            try:
                async for piece in _read_file(path, start, end):
                    yield piece
            except OSError as error:
                raise self._errors.translated(error) from error
            return
        options = cast(Any, {"range": (start, end)})
        result = await self._errors.aguard(
            lambda: obstore.get_async(self._store, key, options=options)
        )
        try:
            async for chunk in result.stream(min_chunk_size=CHUNK):
                yield memoryview(chunk)
        except (BaseError, OSError) as error:
            raise self._errors.translated(error) from error

    def check(self) -> None:
        """Write and read a small object. Raises a :class:`Problem` that says what is in the way: a
        bucket that is not there, a disk without room or inodes, credentials, or no answer."""
        self.put(PROBE, b"ok")
        if self.get(PROBE) is None:
            raise Unavailable("the object store forgets what was just written to it")

    def _listed(self, prefix: str, after: str | None = None) -> Iterator[Any]:
        try:
            for batch in obstore.list(self._store, prefix=prefix, offset=after):
                yield from batch
        except (BaseError, OSError) as error:
            raise self._errors.translated(error) from error

    def _renamed(self, key: str, path: Path) -> bool:
        target = self.local_path(key)
        if target is None:
            return False
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.chmod(path, 0o640)
            os.replace(path, target)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return False
            raise self._errors.translated(error) from error
        return True


def _reason(error: Exception) -> str:
    """What a store's error says, in one line; it prints its whole state after that."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


async def _read_file(path: Path, start: int, end: int) -> AsyncIterator[bytes]:
    with await anyio.to_thread.run_sync(lambda: path.open("rb", buffering=0)) as file:
        file.seek(start)
        while start < end:
            piece = await anyio.to_thread.run_sync(file.read, min(CHUNK, end - start))
            if not piece:
                raise Unavailable(f"{path.name} is shorter than it was stored")
            start += len(piece)
            yield piece
