"""Widths by module, side by side: where models of one lineage differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.comparison import Side
from torchpruner_dashboard.components.data_table import Column, DataTable, search_field
from torchpruner_dashboard.components.notices import empty_state

ALL = "All parameters"


def width_table(sides: Sequence[Side]) -> None:
    """Shapes of parameters; only those that differ unless one asks for all."""
    rows = width_rows(sides)
    changed = [row for row in rows if row["differs"]]
    columns = [Column("parameter", "Parameter", "name")]
    columns += [Column(f"side{number}", side.name) for number, side in enumerate(sides)]
    with ui.element("section").classes("tp-stack").props('aria-label="Widths"'):
        with ui.row().classes("tp-row"):
            ui.label("Widths by module").classes("tp-h2")
            ui.label(f"{len(changed)} of {len(rows)} parameters differ").classes("tp-soft tp-small")
            ui.element("div").classes("tp-grow")
            every = ui.switch(ALL)
            box = ui.row()
        if not rows:
            empty_state("No parameters", "These models have none in common.", "straighten")
            return
        table = DataTable(columns, changed, empty="No parameter differs")
        with box:
            search_field(table, "Search parameters")
        every.on_value_change(lambda event: table.set_rows(rows if event.value else changed))


def width_rows(sides: Sequence[Side]) -> list[dict[str, Any]]:
    """A row a parameter that any model has, in the first one's order."""
    shapes = [
        {
            name: tensor.shape
            for name, tensor in side.graph.tensors.items()
            if tensor.kind == "parameter"
        }
        for side in sides
        if side.graph is not None
    ]
    names = dict.fromkeys(name for found in shapes for name in found)
    rows = []
    for name in names:
        found = [known.get(name) for known in shapes]
        row: dict[str, Any] = {
            "id": name,
            "parameter": name.removeprefix("self."),
            "differs": any(item != found[0] for item in found),
        }
        for number, item in enumerate(found):
            row[f"side{number}"] = formatting.shape(item) if item is not None else "not there"
            if number and item is not None and found[0] is not None and item != found[0]:
                row[f"side{number}_sub"] = _difference(found[0], item)
        rows.append(row)
    return rows


def _difference(first: Sequence[int], other: Sequence[int]) -> str:
    if len(first) != len(other):
        return "another rank"
    parts = [
        f"axis {dim}: {'▼' if b < a else '▲'} {abs(a - b)}"
        for dim, (a, b) in enumerate(zip(first, other, strict=True))
        if a != b
    ]
    return ", ".join(parts)
