"""The module tree with parameters and FLOPs as bars in the rows.

The rows are those that are open, a page of them at a time: a tree that draws every module of a
large network takes seconds.
"""

from __future__ import annotations

from typing import Any

from nicegui import events, ui

from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.data_table import Column, DataTable
from torchpruner_dashboard.cuts.cut_address import cut_url
from torchpruner_dashboard.model_graphs import ModelOutline

PAGE = 100
MOST_FOUND = 300
"""Rows that a search shows: somebody who finds more searches on."""

COLUMNS = (
    Column("name", "Module", "tree", sortable=False),
    Column("params", "Parameters", "measure", sortable=False),
    Column("flops", "FLOPs", "measure", sortable=False),
    Column("cut", "", "action"),
)


def module_tree(model: str, outline: ModelOutline) -> None:
    """A tree whose first level is open; a search opens what it finds."""
    tree = ModuleTree(model, outline)
    with ui.row().classes("tp-row"):
        field = ui.input("Search modules").props(
            'dense outlined clearable debounce="100" type="search"'
        )
        field.classes("tp-search")
        ui.button("Open all", on_click=lambda: redraw(tree.open_all())).props("flat no-caps dense")
        ui.button("Close all", on_click=lambda: redraw(tree.close_all())).props(
            "flat no-caps dense"
        )
    table = DataTable(COLUMNS, tree.rows(), page_size=PAGE, empty="No module matches")

    def redraw(rows: list[dict[str, Any]]) -> None:
        table.set_rows(rows)

    def toggle(event: events.GenericEventArguments) -> None:
        redraw(tree.toggle(str(event.args)))

    table.table.on("toggle", toggle)
    field.on_value_change(lambda event: redraw(tree.search(str(event.value or ""))))


class ModuleTree:
    """Which modules are open, and the rows that shows. Every change returns the new rows."""

    def __init__(self, model: str, outline: ModelOutline) -> None:
        self._model = model
        self._outline = outline
        self._children: dict[str, list[str]] = {}
        self._roots: list[str] = []
        for name, record in outline.modules.items():
            if record.parent in outline.modules:
                self._children.setdefault(str(record.parent), []).append(name)
            else:
                self._roots.append(name)
        self._open = set(self._roots)
        self._found: set[str] | None = None
        records = outline.modules.values()
        self._most_params = max((record.params for record in records), default=0)
        self._most_flops = max((record.flops for record in records), default=0)

    def toggle(self, name: str) -> list[dict[str, Any]]:
        self._open ^= {name}
        return self.rows()

    def open_all(self) -> list[dict[str, Any]]:
        self._open = set(self._children)
        return self.rows()

    def close_all(self) -> list[dict[str, Any]]:
        self._open = set(self._roots)
        return self.rows()

    def search(self, text: str) -> list[dict[str, Any]]:
        """Show the modules whose name or type has ``text``, and what they are in."""
        lowered = text.strip().lower()
        self._found = None
        if lowered:
            names = [
                name
                for name, record in self._outline.modules.items()
                if lowered in name.lower() or lowered in record.type.lower()
            ]
            self._found = {part for name in names[:MOST_FOUND] for part in _with_ancestors(name)}
        return self.rows()

    def rows(self) -> list[dict[str, Any]]:
        """The rows from top to bottom."""
        rows: list[dict[str, Any]] = []
        waiting = [(name, 0) for name in reversed(self._roots)]
        while waiting:
            name, depth = waiting.pop()
            if self._found is not None and name not in self._found:
                continue
            children = self._children.get(name, [])
            shown = name in self._open if self._found is None else True
            rows.append(self._row(name, depth, shown if children else None))
            if shown:
                waiting += [(child, depth + 1) for child in reversed(children)]
        return rows

    def _row(self, name: str, depth: int, shown: bool | None) -> dict[str, Any]:
        record = self._outline.modules[name]
        row: dict[str, Any] = {
            "id": name,
            "name": name.rpartition(".")[2],
            "name_depth": depth,
            "name_open": shown,
            "name_type": record.type,
        }
        if record.params:
            row["params"] = record.params
            row["params_text"] = formatting.count(record.params)
            row["params_bar"] = round(formatting.share(record.params, self._most_params), 1)
        if record.flops and not self._outline.is_tensor(name):
            row["flops"] = record.flops
            row["flops_text"] = formatting.flops(record.flops)
            row["flops_bar"] = round(formatting.share(record.flops, self._most_flops), 1)
        axes = self._outline.axes.get(name)
        if axes:
            row["cut"] = "cut"
            row["cut_text"] = "Cut"
            row["cut_href"] = cut_url(self._model, axes[0].node, axes[0].dim)
        return row


def _with_ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
