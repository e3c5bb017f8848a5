"""Widths by module, side by side: where models of one lineage differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.comparison import Side
from torchpruner_dashboard.components.data_table import Column, DataTable, csv_button, search_field
from torchpruner_dashboard.components.notices import empty_state

ALL = "All modules"

Shape = Sequence[int]


def width_table(sides: Sequence[Side]) -> None:
    """Shapes of parameters, a row a module; only those that differ unless one asks for all."""
    rows = width_rows(sides)
    changed = [row for row in rows if row["differs"]]
    columns = [Column("module", "Module", "name")]
    columns += [Column(f"side{number}", side.name) for number, side in enumerate(sides)]
    with ui.element("section").classes("tp-stack").props('aria-label="Widths"'):
        with ui.row().classes("tp-row"):
            ui.label("Widths by module").classes("tp-h2")
            ui.label(f"{len(changed)} of {len(rows)} modules differ").classes("tp-soft tp-small")
            ui.element("div").classes("tp-grow")
            every = ui.switch(ALL)
            box = ui.row()
        if not rows:
            empty_state("No parameters", "These models have none in common.", "straighten")
            return
        table = DataTable(columns, changed, page_size=10, empty="No module differs")
        with box:
            search_field(table, "Search modules")
            csv_button(table, "widths.csv")
        every.on_value_change(lambda event: table.set_rows(rows if event.value else changed))


def width_rows(sides: Sequence[Side]) -> list[dict[str, Any]]:
    """A row for each module that has parameters in any model, in the first one's order.

    Parameters of one module that have the same shapes and the same differences are told once.
    """
    shapes = [
        {
            name: tensor.shape
            for name, tensor in side.graph.tensors.items()
            if tensor.kind == "parameter"
        }
        for side in sides
        if side.graph is not None
    ]
    modules: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for found in shapes for name in found):
        modules.setdefault(name.rpartition(".")[0], []).append(name)
    return [_row(module, names, shapes) for module, names in modules.items()]


def _row(
    module: str, names: Sequence[str], shapes: Sequence[Mapping[str, Shape]]
) -> dict[str, Any]:
    found = [[known.get(name) for name in names] for known in shapes]
    row: dict[str, Any] = {
        "id": module,
        "module": module.removeprefix("self.") or "self",
        "module_sub": ", ".join(name.rpartition(".")[2] for name in names),
        "differs": any(side != found[0] for side in found),
    }
    for number, side in enumerate(found):
        told = dict.fromkeys(_shape(item) for item in side)
        row[f"side{number}"] = ", ".join(told)
        differences = dict.fromkeys(
            _difference(first, item)
            for first, item in zip(found[0], side, strict=True)
            if first is not None and item is not None and item != first
        )
        if number and differences:
            row[f"side{number}_sub"] = "; ".join(differences)
    return row


def _shape(shape: Shape | None) -> str:
    return "not there" if shape is None else formatting.shape(shape)


def _difference(first: Shape, other: Shape) -> str:
    if len(first) != len(other):
        return "another rank"
    parts = [
        f"axis {dim}: {'▼' if b < a else '▲'} {abs(a - b)}"
        for dim, (a, b) in enumerate(zip(first, other, strict=True))
        if a != b
    ]
    return ", ".join(parts)
