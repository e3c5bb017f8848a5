"""What was acknowledged, what was wrong: the memory of all clients together."""

from __future__ import annotations

import collections
import threading
from dataclasses import dataclass, field

from benchmarks.chaos.files import File


@dataclass(frozen=True)
class Kept:
    """A model that the service has said it has. ``cut`` is what was cut to derive it, if it was."""

    key: str
    model: str
    file: File
    cut: int | None = None


@dataclass
class Ledger:
    """Counts by name, wrong answers in words, and what must be found in the end."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    kept: dict[tuple[str, str], Kept] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, name: str, number: int = 1) -> None:
        with self.lock:
            self.counts[name] += number

    def mistake(self, words: str) -> None:
        with self.lock:
            self.wrong.append(words[:500])

    def acknowledge(self, kept: Kept) -> None:
        with self.lock:
            self.kept[kept.key, kept.model] = kept

    def forget(self, kept: Kept) -> None:
        """Said before its removal is asked for: after that it may be there or not."""
        with self.lock:
            self.kept.pop((kept.key, kept.model), None)

    def of(self, key: str) -> list[Kept]:
        with self.lock:
            return [kept for kept in self.kept.values() if kept.key == key]
