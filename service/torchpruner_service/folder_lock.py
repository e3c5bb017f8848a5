"""One embedded service to a data folder: a second would take the first one's Valkey from it.

The lock is the kernel's (``flock``), so it goes with its process, however that ends. Its file stays
and says who serves from the folder, or did: keys are made only where somebody ever has.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

NAME = "service.json"


class FolderInUse(RuntimeError):
    """Another service holds the folder."""


class FolderLock:
    """The right to serve from ``folder``, once :meth:`take` returned."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._file: int | None = None
        self._facts: dict[str, Any] = {}

    def take(self, *, alone: bool) -> None:
        """Write down who serves from here; ``alone``: and keep everybody else from it.

        Raises ``FolderInUse`` where somebody else does.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                raise FolderInUse(self._holder()) from error
            raise RuntimeError(
                f"{self._path} cannot be locked ({error.strerror}); put the data folder on a local "
                "disk with --data-dir"
            ) from error
        self.tell(pid=os.getpid(), host=socket.gethostname(), started_at=time.time())

    def tell(self, **facts: Any) -> None:
        """Add to what is written down, such as the address."""
        if self._file is None:
            return
        self._facts.update(facts)
        data = json.dumps(self._facts).encode()
        with contextlib.suppress(OSError):
            os.pwrite(self._file, data, 0)
            os.ftruncate(self._file, len(data))

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _holder(self) -> str:
        facts: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            facts = json.loads(self._path.read_bytes())
        who = f"process {facts['pid']} on {facts['host']}" if "pid" in facts else "another process"
        if "started_at" in facts:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts["started_at"]))
            who = f"{who} since {since}"
        where = f", at {facts['url']}" if "url" in facts else ""
        return (
            f"the data folder {self._path.parent} is in use by {who}{where}: use that service, stop "
            "it, or give this one another folder with --data-dir"
        )


def was_served_from(folder: Path) -> bool:
    """Whether a service ever kept its data in ``folder``."""
    return (folder / NAME).exists() or (folder / "valkey").exists()
