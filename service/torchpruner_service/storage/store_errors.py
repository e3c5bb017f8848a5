"""What went wrong in an object store, as a problem that says what to put right."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from obstore.exceptions import (
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from torchpruner_service.problems import Problem, StorageFull, Unavailable

T = TypeVar("T")

NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "bucket does not exist")
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_BY_TEXT = {
    "No space left": errno.ENOSPC,
    "StorageFull": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "Read-only file system": errno.EROFS,
    "Permission denied": errno.EACCES,
}


class BadStore(Problem):
    """The settings name no object store that can be opened."""

    status = 503
    slug = "bad-storage"
    title = "The object store cannot be opened"

    def __init__(self, url: str, reason: object) -> None:
        super().__init__(
            f"the object store {url} cannot be opened ({reason}); set STORAGE_URL to a store such as "
            "s3://BUCKET, with its credentials in the environment, or to a folder as file:///FOLDER"
        )


class StoreErrors:
    """Translates the errors of one store: ``KeyError`` where there is no such object, else a
    :class:`Problem`."""

    def __init__(self, url: str, folder: Path | None) -> None:
        # Callers see these: they need not know the folders of the machine.
        self._shown = url if folder is None else "on disk"
        self._folder = folder

    def guard(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (BaseError, OSError) as error:
            raise self.translated(error) from error

    async def aguard(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call()
        except (BaseError, OSError) as error:
            raise self.translated(error) from error

    def translated(self, error: Exception) -> Exception:
        """What to raise for ``error``."""
        text = str(error)
        if any(words in text for words in NO_BUCKET):
            return Unavailable(
                f"the bucket of {self._shown} does not exist: make it, or set STORAGE_URL to one that "
                "does",
                slug="bad-storage",
                part="storage",
            )
        if isinstance(error, (NotFoundError, FileNotFoundError)):
            return KeyError("no such object")
        number = _number(error, text)
        if number in NO_ROOM:
            return full(self._folder, "the object store", number)
        if number in {errno.EACCES, errno.EPERM} or isinstance(
            error, (PermissionDeniedError, UnauthenticatedError)
        ):
            return Unavailable(
                f"the object store {self._shown} refuses access: look at "
                + ("its credentials" if self._folder is None else "who owns the folder"),
                slug="bad-storage",
                part="storage",
            )
        if number == errno.EROFS:
            return Unavailable(
                f"the object store {self._shown} is on a filesystem that is mounted read-only",
                slug="bad-storage",
                part="storage",
            )
        return Unavailable(
            f"the object store {self._shown} does not answer ({type(error).__name__}); nothing "
            "acknowledged was lost, try again",
            part="storage",
        )


def full(folder: Path | None, what: str, number: int = errno.ENOSPC) -> StorageFull:
    """The problem of a disk without room: bytes, files, or a quota of either.

    A filesystem has so many inodes, one for each file and folder, however small they are.
    """
    if number == errno.EDQUOT:
        return StorageFull(f"{what} has used up its disk quota; delete models or raise the quota")
    if folder is not None and _no_inodes(folder):
        return StorageFull(
            f"{what} has no inodes left: its disk has room, and may hold no more files. Delete "
            "models, run `torchpruner-service gc`, or make a filesystem with more inodes",
            reason="no-inodes",
        )
    return StorageFull(f"{what} is full; delete models or add room, then try again")


def _no_inodes(folder: Path) -> bool:
    try:
        facts = os.statvfs(folder)
    except OSError:
        return False
    return facts.f_files > 0 and facts.f_favail == 0


def _number(error: Exception, text: str) -> int:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    return next((number for words, number in _BY_TEXT.items() if words in text), 0)
