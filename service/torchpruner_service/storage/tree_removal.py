"""Removes folders that untrusted code has filled: of any depth, with any modes, whatever the names.

The library's way recurses, and walks by paths, which end at 4,096 bytes; an archive with thousands
of nested folders defeats both. Here each folder's folders are moved up beside the first one, so no
path is ever long.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` and all in it, as far as that can be done. Links are not followed. Never
    raises."""
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        with contextlib.suppress(OSError):
            os.chmod(current, 0o700)
            with os.scandir(current) as found:
                entries = list(found)
            for entry in entries:
                with contextlib.suppress(OSError):
                    waiting += _taken_out(entry, folder.parent)
        with contextlib.suppress(OSError):
            os.rmdir(current)


def _taken_out(entry: os.DirEntry[str], beside: Path) -> list[Path]:
    """Remove a file, or move a folder out of its folder and return where it is."""
    if not entry.is_dir(follow_symlinks=False):
        os.unlink(entry.path)
        return []
    os.chmod(entry.path, 0o700)
    place = beside / f"gone-{secrets.token_hex(8)}"
    os.rename(entry.path, place)
    return [place]
