"""Something examined step by step: its row grows, and is saved before each step, whatever ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Row = dict[str, Any]
Save = Callable[[Row], None]


class Examination:
    """``save`` is given the unfinished row before each step, so that a killed process leaves it."""

    def __init__(self, name: str, family: str, save: Save) -> None:
        self.save = save
        self.row: Row = {
            "name": name,
            "family": family,
            "built": False,
            "error": "",
            "stage": "starting",
            "seconds": {},
            "cuts": [],
        }

    def run(self) -> None:
        """Take every step; an error ends the row and stands in it."""
        raise NotImplementedError

    def examined(self) -> Row:
        """Return the row of a whole run."""
        row = self.row
        self.save(row)
        try:
            self.run()
            row["stage"] = "done"
        except MemoryError:
            row["error"] = f"out of memory while {row['stage']}"
        except Exception as error:
            row["error"] = f"{type(error).__name__} while {row['stage']}: {first_line(error)}"
        self.save(row)
        return row

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Say what is being done, and add up the seconds under its first word."""
        self.row["stage"] = name
        self.save(self.row)
        began = time.perf_counter()
        yield
        key = name.split()[0]
        spent = self.row["seconds"].get(key, 0.0) + time.perf_counter() - began
        self.row["seconds"][key] = round(spent, 3)


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line of bounded length."""
    lines = str(error).strip().splitlines()
    return lines[0][:400] if lines else type(error).__name__
