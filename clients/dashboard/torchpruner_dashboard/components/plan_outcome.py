"""What a plan comes to: costs, the frontier, and each group's width before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from torchpruner_client import FrontierPoint
from torchpruner_core.planning.plan import Plan
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.data_table import Column, DataTable, csv_button, search_field
from torchpruner_dashboard.plans.frontier_picture import frontier_picture
from torchpruner_dashboard.plans.plan_choice import LIMITS, PlanChoice

COLUMNS = (
    Column("module", "Module", "name"),
    Column("width", "Width that is left", "measure"),
    Column("before", "Before", "number"),
    Column("bound", "Why", "text"),
)
TEXTS = {
    "flops": formatting.flops,
    "macs": formatting.count,
    "params": formatting.count,
    "bytes": formatting.size,
    "memory": formatting.size,
}
BOUNDS = {
    "budget": "cut as far as the budget asks",
    "max_cut": "as much as may go of one group",
    "min_keep": "the least that must stay",
    "round_to": "the next multiple would be too narrow",
}


class PlanOutcome:
    """Built once; the slider changes only what is in it."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._points: dict[int, FrontierPoint] = {}
        self._content = ui.element("div").classes("tp-stack").props('aria-live="polite"')
        with self._content:
            with ui.element("section").classes("tp-card").props('aria-label="Costs"'):
                self._title = ui.label().classes("tp-h2")
                self._problem = ui.label().classes("tp-soft")
                self._costs = ui.element("div").classes("tp-compare")
                self.actions = ui.row().classes("tp-row")
            with ui.element("section").classes("tp-card").props('aria-label="Frontier"'):
                ui.label("What is kept, for other budgets").classes("tp-h2")
                # Built from numbers alone.
                self._picture = ui.html("", sanitize=False)
            with ui.row().classes("tp-row"):
                self._counted = ui.label().classes("tp-h2")
                ui.element("div").classes("tp-grow")
                box = ui.row()
            self._table = DataTable(COLUMNS, [], page_size=10)
            with box:
                search_field(self._table, "Search groups")
                csv_button(self._table, "widths.csv")
        self._content.set_visibility(False)

    def wait(self) -> None:
        """A question is under way: what is shown is about to change."""
        self._content.classes("tp-busy")

    def hide(self) -> None:
        self._content.classes(remove="tp-busy")
        self._content.set_visibility(False)

    def show(self, plan: Plan, points: Sequence[FrontierPoint], choice: PlanChoice) -> None:
        """Show what the service answered."""
        self._plan = plan
        self._points = {round(100 * point.fraction): point for point in points}
        self._content.classes(remove="tp-busy")
        self._content.set_visibility(True)
        self.choose(choice)

    def choose(self, choice: PlanChoice) -> None:
        """Show the chosen point of the frontier that is here already."""
        plan = self._plan
        point = self._points.get(choice.percent)
        if plan is None or point is None:
            return
        word = LIMITS[choice.limit]
        self._title.text = f"{choice.percent} % of the {word}"
        self._problem.text = point.problem or ""
        self._costs.clear()
        with self._costs:
            for name, cost in point.costs.items():
                if name in TEXTS and name != "macs":
                    _cost_row(LIMITS.get(name, name), cost, TEXTS[name])
        self._picture.content = frontier_picture(
            list(self._points.values()), choice.limit, choice.fraction
        )
        rows = group_rows(plan, point.widths)
        cut = sum(row["width"] < row["before"] for row in rows)
        self._counted.text = f"{cut} of {formatting.plural(len(rows), 'group')} are cut"
        self._table.set_rows(rows)


def group_rows(plan: Plan, widths: Sequence[int]) -> list[dict[str, Any]]:
    """One row a group, in the model's order; nothing where the point cannot be reached."""
    rows = []
    for number, (group, after) in enumerate(zip(plan.groups, widths, strict=False)):
        if after < group.before:
            why = BOUNDS.get(group.bound or "budget", group.bound or "")
        else:
            why = group.reason or "other groups matter less"
        rows.append(
            {
                "id": number,
                "module": group.module.removeprefix("self."),
                "module_sub": f"and {formatting.plural(len(group.members) - 1, 'axis', 'axes')} more"
                if len(group.members) > 1
                else None,
                "width": after,
                "width_text": f"{after} of {group.before}",
                "width_bar": formatting.share(after, group.before),
                "before": group.before,
                "bound": why,
            }
        )
    return rows


def _cost_row(name: str, cost: dict[str, float], text: Any) -> None:
    ui.label(name).classes("tp-soft")
    with ui.element("span").classes("tp-track").style("margin: 0; height: 8px"):
        share = formatting.share(cost["after"], cost["before"])
        ui.element("i").style(f"height: 8px; width: {share:.2f}%")
    ui.label(f"{text(cost['before'])} → {text(cost['after'])}").style("text-align: right")
    ui.label(formatting.change(cost["before"], cost["after"])).classes("tp-down").style(
        "text-align: right"
    )
