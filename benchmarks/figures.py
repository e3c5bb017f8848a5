"""One form for every measured figure: what, how much, the target, and whether it holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """``value`` and ``target`` are in ``unit``; ``holds`` is ``None`` where nothing is promised."""

    figure: str
    value: float
    target: float | None
    unit: str
    holds: bool | None
    note: str = ""

    @classmethod
    def at_most(cls, figure: str, value: float, target: float, unit: str, note: str = "") -> Figure:
        """A figure that holds while ``value`` is not above ``target``."""
        return cls(figure, value, target, unit, value <= target, note)

    @classmethod
    def at_least(
        cls, figure: str, value: float, target: float, unit: str, note: str = ""
    ) -> Figure:
        """A figure that holds while ``value`` is not below ``target``."""
        return cls(figure, value, target, unit, value >= target, note)

    @classmethod
    def shown(cls, figure: str, value: float, unit: str, note: str = "") -> Figure:
        """A figure without a target, printed so that the others can be judged."""
        return cls(figure, value, None, unit, None, note)

    def to_dict(self) -> dict[str, object]:
        return {
            "figure": self.figure,
            "value": round(self.value, 6),
            "target": self.target,
            "holds": self.holds,
            "unit": self.unit,
            "note": self.note,
        }


def report(title: str, figures: Iterable[Figure], path: Path, console: Console) -> bool:
    """Print the table, write ``path`` as JSON and return whether every promised figure holds."""
    rows = list(figures)
    table = Table(title=title, header_style="bold", expand=False)
    table.add_column("figure", overflow="fold")
    table.add_column("value", justify="right")
    table.add_column("target", justify="right")
    table.add_column("holds")
    table.add_column("note", overflow="fold", style="dim")
    marks = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}
    for row in rows:
        target = "" if row.target is None else f"{row.target:g} {row.unit}"
        table.add_row(
            row.figure, f"{_short(row.value)} {row.unit}", target, marks[row.holds], row.note
        )
    console.print(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row.to_dict() for row in rows], indent=1) + "\n")
    console.print(f"Written to {path}")
    return all(row.holds is not False for row in rows)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
