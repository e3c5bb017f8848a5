"""The groups of a model: what is pruned together, and where that pays."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from torchpruner_client import Group
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.data_table import Column, data_table, search_field
from torchpruner_dashboard.components.notices import empty_state
from torchpruner_dashboard.cuts.cut_address import cut_url
from torchpruner_dashboard.model_graphs import ModelOutline

COLUMNS = (
    Column("members", "Pruned together", "name"),
    Column("width", "Slices", "number"),
    Column("step", "At once", "number"),
    Column("params", "Parameters a slice", "measure"),
    Column("flops", "FLOPs a slice", "measure"),
    Column("prunable", "Prunable", "state"),
    Column("cut", "", "action"),
)


def group_table(model: str, outline: ModelOutline) -> None:
    """A searchable table; bars are relative to the dearest slice of the model."""
    if not outline.groups:
        empty_state("No groups", "Nothing in this model can be pruned.", "block")
        return
    rows = group_rows(model, outline)
    box = ui.row().classes("tp-row")
    table = data_table(COLUMNS, rows, sort_by="flops", descending=True)
    with box:
        search_field(table, "Search parameters")
        ui.label("Sorted by what one slice saves: prune at the top first.").classes(
            "tp-soft tp-small"
        )


def group_rows(model: str, outline: ModelOutline) -> list[dict[str, Any]]:
    """One row a group."""
    most_params = max((group.params_per_slice for group in outline.groups), default=0)
    most_flops = max((group.flops_per_slice for group in outline.groups), default=0)
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
        "prunable": "yes" if group.prunable else "no",
        "prunable_icon": "check_circle" if group.prunable else "block",
        "prunable_colour": "#009e73" if group.prunable else "#8a8f98",
        "prunable_sub": group.reason,
        "cut": "cut",
        "cut_text": "Cut" if group.prunable else None,
        "cut_href": cut_url(model, node, dim) if group.prunable else None,
    }
