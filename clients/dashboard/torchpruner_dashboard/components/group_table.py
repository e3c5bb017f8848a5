"""The groups of a model: what is pruned together, and where that pays."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from torchpruner_client import Group
from torchpruner_dashboard import formatting, palette
from torchpruner_dashboard.components.data_table import Column, DataTable, csv_button, search_field
from torchpruner_dashboard.components.notices import empty_state
from torchpruner_dashboard.cuts.cut_address import cut_url
from torchpruner_dashboard.model_graphs import ModelOutline

SIGNS = {
    "yes": palette.Sign(palette.GREEN, "check_circle", "yes"),
    "yes, but": palette.Sign(palette.ORANGE, "warning", "yes, but"),
    "no": palette.Sign(palette.GREY, "block", "no"),
}

COLUMNS = (
    Column("members", "Pruned together", "name"),
    Column("width", "Slices", "number"),
    Column("step", "Go together", "number"),
    Column("params", "Parameters a slice", "measure"),
    Column("flops", "FLOPs a slice", "measure"),
    Column("prunable", "Prunable", "state", signs=SIGNS),
    Column("cut", "", "action"),
)


def group_table(model: str, outline: ModelOutline) -> None:
    """A searchable table; bars are relative to the slice of the model that saves most."""
    if not outline.groups:
        empty_state("No groups", "Nothing in this model can be pruned.", "block")
        return
    rows = group_rows(model, outline)
    box = ui.row().classes("tp-row")
    rows.sort(key=lambda row: (-row["rank"], -row["flops"]))
    table = DataTable(COLUMNS, rows, page_size=10)
    with box:
        search_field(table, "Search parameters")
        csv_button(table, "groups.csv")
        ui.label("What saves most first; groups that reach an input or output last.").classes(
            "tp-soft tp-small"
        )


def group_rows(model: str, outline: ModelOutline) -> list[dict[str, Any]]:
    """One row a group."""
    # Channels of an image are dear and are not for pruning: they would make all bars short.
    inner = [group for group in outline.groups if not group.touches] or outline.groups
    most_params = max((group.params_per_slice for group in inner), default=0)
    most_flops = max((group.flops_per_slice for group in inner), default=0)
    return [_row(model, group, most_params, most_flops) for group in outline.groups]


def _row(model: str, group: Group, most_params: int, most_flops: int) -> dict[str, Any]:
    node, dim = group.members[0]
    others = [f"{name} axis {axis}" for name, axis in group.members[1:]]
    return {
        "id": group.id,
        # All of them, though one is shown: a person searches for any.
        "members": " ".join([f"{node} axis {dim}", *others]),
        "members_text": f"{node.removeprefix('self.')}, axis {dim}",
        "members_href": cut_url(model, node, dim) if group.prunable else None,
        "members_sub": f"and {formatting.plural(len(others), 'axis', 'axes')} more"
        if others
        else None,
        "width": group.width,
        "step": group.step,
        "params": group.params_per_slice,
        "params_text": formatting.count(group.params_per_slice),
        "params_bar": formatting.share(group.params_per_slice, most_params),
        "flops": group.flops_per_slice,
        "flops_text": formatting.flops(group.flops_per_slice),
        "flops_bar": formatting.share(group.flops_per_slice, most_flops),
        # Sorts inner groups before those that change what the model takes or gives.
        "rank": 0 if not group.prunable else 1 if group.touches else 2,
        **_prunable_cell(group),
        "cut": "cut",
        "cut_text": "Cut" if group.prunable else None,
        "cut_href": cut_url(model, node, dim) if group.prunable else None,
    }


def _prunable_cell(group: Group) -> dict[str, Any]:
    if not group.prunable:
        return {"prunable": "no", "prunable_sub": group.reason}
    if group.touches:
        return {
            "prunable": "yes, but",
            "prunable_sub": f"changes {formatting.listed(group.touches)}",
        }
    return {"prunable": "yes"}
