"""How much disk a task uses, counted so that no way to hide it or to make counting dear helps."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

SMALLEST = 4096
"""Bytes that an entry counts at least: files and folders without content use up inodes."""


def disk_used(folder: Path, limit: int) -> int:
    """Bytes under ``folder``, or more than ``limit`` as soon as there are so many.

    A folder that cannot be looked into (too deep for a path, or closed) counts as too much: what it
    holds is unknown.
    """
    used, waiting = 0, [os.fspath(folder)]
    while waiting and used <= limit:
        current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    used += _entry_bytes(entry)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    if used > limit:
                        break
        except FileNotFoundError:
            continue
        except OSError:
            return limit + 1
    return used


def _entry_bytes(entry: os.DirEntry[str]) -> int:
    with contextlib.suppress(OSError):
        return max(SMALLEST, entry.stat(follow_symlinks=False).st_blocks * 512)
    return SMALLEST
