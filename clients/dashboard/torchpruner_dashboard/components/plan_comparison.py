"""Plans side by side: what each costs, and how wide each leaves every group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from torchpruner_client import PlanRecord
from torchpruner_core.planning.plan import Plan
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.cost_rows import cost_rows
from torchpruner_dashboard.components.data_table import Column, DataTable, csv_button, search_field
from torchpruner_dashboard.components.timings import round_notes
from torchpruner_dashboard.plans.plan_sight import PlanSight

Named = tuple[PlanRecord, Plan]


def plan_comparison(plans: Sequence[Named]) -> None:
    """A card a plan, then a row a group with a bar for each plan."""
    with (
        ui.element("section")
        .classes("tp-cards tp-wide-cards")
        .props('aria-label="Costs side by side"')
    ):
        for record, plan in plans:
            sight = PlanSight.of_plan(plan)
            with ui.column().classes("tp-card").style("gap: 6px"):
                ui.label(record.name or record.id).classes("tp-h2 tp-wrap")
                if sight.score_kept is not None:
                    ui.label(f"keeps {sight.score_kept:.1%} of the importance").classes("tp-soft")
                cost_rows(sight.costs)
                if sight.rounds:
                    seconds = sight.costs["latency"]["after"]
                    round_notes(sight.rounds, seconds, record.measured_on)
    columns = [Column("module", "Module", "name"), Column("before", "Before", "number")]
    columns += [
        Column(f"plan{n}", record.name or record.id, "measure")
        for n, (record, _) in enumerate(plans)
    ]
    with ui.element("section").classes("tp-stack").props('aria-label="Widths side by side"'):
        with ui.row().classes("tp-row"):
            ui.label("Widths").classes("tp-h2")
            ui.element("div").classes("tp-grow")
            box = ui.row()
        table = DataTable(columns, width_rows(plans), page_size=10)
        with box:
            search_field(table, "Search groups")
            csv_button(table, "plans.csv")


def width_rows(plans: Sequence[Named]) -> list[dict[str, Any]]:
    """One row a group of any plan, told by the axis that stands for it, in the model's order."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for number, (_, plan) in enumerate(plans):
        for group in plan.groups:
            row = rows.setdefault(
                (group.node, group.dim),
                {
                    "id": f"{group.node} {group.dim}",
                    "module": group.module.removeprefix("self."),
                    "before": group.before,
                },
            )
            row[f"plan{number}"] = group.after
            row[f"plan{number}_text"] = f"{group.after} of {group.before}"
            row[f"plan{number}_bar"] = formatting.share(group.after, group.before)
    return list(rows.values())
