"""Where a download is written: looked at before anything is asked of the service."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from torchpruner_client.errors import DownloadDamaged, DownloadTargetError


def check_target(target: Path) -> None:
    """Raise :class:`DownloadTargetError` where no file can be made at ``target``."""
    folder = target.parent
    if target.is_dir():
        raise DownloadTargetError(f"{target} is a folder; give the file's name too")
    if not folder.is_dir():
        raise DownloadTargetError(f"there is no folder {folder}; make it, then download again")
    if target.exists() and not target.is_file():
        # Renaming a file onto /dev/null or a pipe would put the file in its place.
        raise DownloadTargetError(
            f"{target} is no ordinary file; give the name of one, or a new name"
        )


def part_of(target: Path) -> Path:
    """A name beside ``target`` that no other download has, in this process or another."""
    return target.with_name(f".torchpruner-{secrets.token_hex(8)}.part")


def put_in_place(part: Path, target: Path, digest: str) -> None:
    """Give a whole download its name in one step, over what had it, and read it once more.

    Raises ``DownloadDamaged`` where the file of that name then has another sha256 than ``digest``
    (hex): something else wrote there at the same time.
    """
    try:
        part.replace(target)
        with target.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unwritable(target, error) from error
    if found != digest:
        raise DownloadDamaged(
            f"{target} was written by something else at the same time: it has the sha256 {found}, "
            f"the download {digest}; give each download a name of its own"
        )


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """``path``, a new file open for writing. Errors of the disk become
    :class:`DownloadTargetError`."""
    try:
        with path.open("xb") as file:
            yield file
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> DownloadTargetError:
    return DownloadTargetError(
        f"the download cannot be written to {path.parent} ({error.strerror or error}); "
        "choose another folder or make room, then download again"
    )
