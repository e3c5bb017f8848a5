"""Progress bars, drawn by rich on a terminal, or whatever the caller gives."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Progress(Protocol):
    """What an operation tells while it runs. One bar at a time; ``total`` may be unknown (0)."""

    def update(self, label: str, done: float, total: float, unit: str) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Tells nobody."""

    def update(self, label: str, done: float, total: float, unit: str) -> None: ...

    def close(self) -> None: ...


class RichProgress:
    """A bar on standard error for each label."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as Bars

        self._bytes = Bars(
            TextColumn("[cyan]{task.description}"),
            BarColumn(),
            DownloadColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._percent = Bars(
            TextColumn("[cyan]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._open: tuple[Any, Any] | None = None
        self._kind = ""

    def update(self, label: str, done: float, total: float, unit: str) -> None:
        bars = self._bytes if unit == "bytes" else self._percent
        if self._open is None or self._open[0] is not bars:
            self.close()
            bars.start()
            self._open = (bars, bars.add_task(label, total=total or None))
        self._open[0].update(self._open[1], description=label, completed=done, total=total or None)

    def close(self) -> None:
        if self._open is not None:
            bars, task = self._open
            bars.remove_task(task)
            bars.stop()
            self._open = None


@contextmanager
def showing(progress: Progress | bool | None) -> Iterator[Progress]:
    """Yield the listener that ``progress`` stands for: ``None`` shows bars on a terminal, a bool
    decides."""
    shown: Progress
    if progress is None:
        progress = sys.stderr.isatty()
    if isinstance(progress, bool):
        shown = RichProgress() if progress else Silent()
    else:
        shown = progress
    try:
        yield shown
    finally:
        shown.close()
