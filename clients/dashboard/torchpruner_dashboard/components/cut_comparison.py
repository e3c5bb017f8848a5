"""Cuts side by side: what each saves, and how wide each leaves every axis that any of them cuts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from torchpruner_client import CutResult, SavedCut
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.cost_rows import cost_rows
from torchpruner_dashboard.components.data_table import Column, DataTable, csv_button, search_field

Kept = tuple[SavedCut, CutResult]


def cut_comparison(cuts: Sequence[Kept]) -> None:
    """A card a cut, then a row an axis with a bar for each cut."""
    with (
        ui.element("section")
        .classes("tp-cards tp-wide-cards")
        .props('aria-label="Savings side by side"')
    ):
        for cut, _ in cuts:
            with ui.column().classes("tp-card").style("gap: 6px"):
                ui.label(cut.name).classes("tp-h2 tp-wrap")
                cost_rows(
                    {
                        "flops": {"before": cut.flops_before, "after": cut.flops_after},
                        "params": {"before": cut.params_before, "after": cut.params_after},
                    }
                )
    columns = [Column("axis", "Axis", "name")]
    columns += [Column(f"cut{n}", cut.name, "measure") for n, (cut, _) in enumerate(cuts)]
    with ui.element("section").classes("tp-stack").props('aria-label="Axes side by side"'):
        with ui.row().classes("tp-row"):
            ui.label("Widths").classes("tp-h2")
            ui.element("div").classes("tp-grow")
            box = ui.row()
        table = DataTable(columns, axis_rows([result for _, result in cuts]), page_size=10)
        with box:
            search_field(table, "Search axes")
            csv_button(table, "cuts.csv")


def axis_rows(results: Sequence[CutResult]) -> list[dict[str, Any]]:
    """A row for each axis that any of ``results`` cuts; where another does not, it is whole there."""
    widths: dict[tuple[str, int], int] = {}
    for result in results:
        for node, axes in result.terminal.items():
            for dim, gone in enumerate(axes):
                if gone is not None and len(gone):
                    widths[node, dim] = result.shapes[node][dim]
    rows = []
    for (node, dim), width in widths.items():
        row: dict[str, Any] = {
            "id": f"{node}:{dim}",
            "axis": f"{node.removeprefix('self.')}, axis {dim}",
        }
        for number, result in enumerate(results):
            gone = result.terminal[node][dim] if node in result.terminal else None
            after = width - (0 if gone is None else len(gone))
            row[f"cut{number}"] = after
            row[f"cut{number}_text"] = f"{after} of {width}"
            row[f"cut{number}_bar"] = formatting.share(after, width)
        rows.append(row)
    return rows
