"""The parameters that a cut changes, by module."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nicegui import ui

from torchpruner_client import CutResult
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.data_table import (
    Column,
    DataTable,
    csv_button,
    csv_text,
    search_field,
)
from torchpruner_dashboard.cuts.index_text import indices_text
from torchpruner_dashboard.cuts.reach import removed_elements
from torchpruner_dashboard.model_graphs import ModelGraph

PAGE = 10

COLUMNS = (
    Column("module", "Module", "tree", sortable=False),
    Column("parameter", "Parameters", "line", sortable=False),
    Column("axis", "Axis", "number", sortable=False),
    Column("removed", "Removed", "measure", sortable=False),
    Column("elements", "Elements gone", "number", sortable=False),
    Column("indices", "Indices", "line", sortable=False),
)


class AffectedTable:
    """One row an axis of a parameter; more than a page of them are folded by module."""

    def __init__(self, graph: ModelGraph) -> None:
        self._graph = graph
        self._rows: list[dict[str, Any]] = []
        self._open: set[str] = set()
        self._text = ""
        with ui.element("section").classes("tp-stack").props('aria-label="Affected parameters"'):
            with ui.row().classes("tp-row"):
                self._title = ui.label().classes("tp-h2")
                ui.element("div").classes("tp-grow")
                box = ui.row()
            self._table = DataTable(COLUMNS, [], page_size=PAGE)
            self._table.table.on("toggle", lambda event: self._toggle(str(event.args)))
            with box:
                search_field(self, "Search affected")
                csv_button(self, "affected.csv")

    def show(self, result: CutResult) -> None:
        self._rows = affected_rows(result, self._graph)
        modules = len({row["module"] for row in self._rows})
        self._title.text = (
            f"{formatting.plural(len(result.terminal), 'parameter')} in "
            f"{formatting.plural(modules, 'module')}"
        )
        self._draw()

    def search(self, text: str) -> None:
        """Show the rows that have ``text`` in a cell, all folds open."""
        self._text = text
        self._draw()

    def csv(self) -> str:
        """All rows that the search leaves, folded or not."""
        return csv_text(COLUMNS, found_rows(self._rows, self._text))

    def _toggle(self, fold: str) -> None:
        self._open ^= {fold}
        self._draw()

    def _draw(self) -> None:
        self._table.set_rows(shown_rows(self._rows, self._open, self._text))


def found_rows(rows: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The rows that have ``text`` in one of their cells."""
    wanted = text.strip().lower()
    cells = ("module", "module_sub", "parameter", "removed_text", "indices")
    return [row for row in rows if any(wanted in str(row.get(cell, "")).lower() for cell in cells)]


def shown_rows(
    rows: list[dict[str, Any]], opened: Collection[str], text: str = ""
) -> list[dict[str, Any]]:
    """The rows of a page: all where they fit on one, else folds of them, those that are open with theirs."""
    if text.strip():
        return found_rows(rows, text)
    if len(rows) <= PAGE:
        return rows
    shown = [row for row in rows if row["parameter_sub"]]  # what was asked for is never folded
    rest = [row for row in rows if not row["parameter_sub"]]
    folds: dict[str, list[dict[str, Any]]] = {}
    depth = _fold_depth(rest)
    for row in rest:
        folds.setdefault(_fold_of(row, depth), []).append(row)
    for fold, inside in folds.items():
        if len(inside) == 1:
            shown += inside
            continue
        shown.append(_fold_row(fold, inside, fold in opened))
        if fold in opened:
            shown += [{**row, "module_depth": 1} for row in inside]
    return shown


def _fold_of(row: Mapping[str, Any], depth: int) -> str:
    return ".".join(str(row["module"]).split(".")[:depth])


def _fold_depth(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many parts of a module's name are a fold's: as many as halve the rows, and fit on a page."""
    longest = max((str(row["module"]).count(".") + 1 for row in rows), default=1)
    most = min(PAGE, len(rows) // 2)
    depths = (d for d in range(longest, 1, -1) if len({_fold_of(row, d) for row in rows}) <= most)
    return next(depths, 1)


def _fold_row(fold: str, inside: Sequence[Mapping[str, Any]], opened: bool) -> dict[str, Any]:
    count = sum(str(row["parameter"]).count(",") + 1 for row in inside)
    gone = sum(row["elements"] for row in inside)
    return {
        "id": fold,
        "module": fold,
        "module_open": opened,
        "module_depth": 0,
        "parameter": formatting.plural(count, "parameter"),
        "elements": gone,
        "elements_text": formatting.count(gone),
    }


def affected_rows(result: CutResult, graph: ModelGraph) -> list[dict[str, Any]]:
    """The rows, in the model's order, requested parameters first.

    Parameters of one module that lose the same slices of the same axis share a row.
    """
    asked = {request.node for request in result.requested}
    rows: dict[tuple[str, int, str], dict[str, Any]] = {}
    for name in sorted(result.terminal, key=lambda name: name not in asked):
        module = graph.outline.holder(name)
        record = graph.outline.modules.get(module)
        shape = result.shapes.get(name) or ()
        for dim, indices in enumerate(result.terminal[name]):
            if indices is None or not len(indices):
                continue
            width = shape[dim] if dim < len(shape) else 0
            text = indices_text(indices.tolist())
            key = (module, dim, text)
            gone = removed_elements(result, name)
            if key in rows:
                row = rows[key]
                row["parameter"] += f", {name.rpartition('.')[2]}"
                row["elements"] += gone
                row["elements_text"] = formatting.count(row["elements"])
                continue
            rows[key] = {
                "id": f"{name}:{dim}",
                "module": module.removeprefix("self."),
                "module_depth": 0,
                "module_sub": record.type if record else "constant of the program",
                "parameter": name.rpartition(".")[2],
                "parameter_sub": "you chose this" if name in asked else None,
                "axis": dim,
                "removed": len(indices),
                "removed_text": f"{len(indices)} of {width}",
                "removed_bar": formatting.share(len(indices), width),
                "indices": _short(text),
                "elements": gone,
                "elements_text": formatting.count(gone),
            }
    return list(rows.values())


def _short(text: str, longest: int = 44) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"
