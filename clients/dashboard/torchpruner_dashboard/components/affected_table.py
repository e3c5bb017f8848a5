"""The parameters that a cut changes, by module."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from torchpruner_client import CutResult
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.data_table import Column, DataTable, csv_button, search_field
from torchpruner_dashboard.cuts.index_text import indices_text
from torchpruner_dashboard.cuts.reach import removed_elements
from torchpruner_dashboard.model_graphs import ModelGraph

PAGE = 10

COLUMNS = (
    Column("module", "Module", "name"),
    Column("parameter", "Parameters", "line"),
    Column("axis", "Axis", "number"),
    Column("removed", "Removed", "measure"),
    Column("elements", "Elements gone", "number"),
    Column("indices", "Indices", "line", sortable=False),
)


class AffectedTable:
    """One row an axis of a parameter."""

    def __init__(self, graph: ModelGraph) -> None:
        self._graph = graph
        with ui.element("section").classes("tp-stack").props('aria-label="Affected parameters"'):
            with ui.row().classes("tp-row"):
                self._title = ui.label().classes("tp-h2")
                ui.element("div").classes("tp-grow")
                box = ui.row()
            self._table = DataTable(COLUMNS, [], page_size=PAGE)
            with box:
                search_field(self._table, "Search affected")
                csv_button(self._table, "affected.csv")

    def show(self, result: CutResult) -> None:
        rows = affected_rows(result, self._graph)
        modules = len({row["module"] for row in rows})
        self._title.text = (
            f"{formatting.plural(len(result.terminal), 'parameter')} in "
            f"{formatting.plural(modules, 'module')}"
        )
        self._table.set_rows(rows)


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
