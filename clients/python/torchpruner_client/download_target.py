"""Where a download is written: looked at before anything is asked of the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from torchpruner_client.errors import DownloadTargetError


def check_target(target: Path) -> None:
    """Raise :class:`DownloadTargetError` where no file can be made at ``target``."""
    folder = target.parent
    if target.is_dir():
        raise DownloadTargetError(f"{target} is a folder; give the file's name too")
    if not folder.is_dir():
        raise DownloadTargetError(f"there is no folder {folder}; make it, then download again")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """``path``, open for writing. Errors of the disk become :class:`DownloadTargetError`."""
    try:
        with path.open("wb") as file:
            yield file
    except OSError as error:
        raise DownloadTargetError(
            f"the download cannot be written to {path.parent} ({error.strerror or error}); "
            "choose another folder or make room, then download again"
        ) from error
