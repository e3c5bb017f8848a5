"""What a plan comes to: costs, the frontier, and each group's width before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nicegui import events, ui

from torchpruner_client import FrontierPoint
from torchpruner_core.planning.plan import Plan
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.cost_rows import cost_rows
from torchpruner_dashboard.components.data_table import Column, DataTable, csv_button, search_field
from torchpruner_dashboard.components.timings import round_notes
from torchpruner_dashboard.plans.frontier_picture import frontier_picture
from torchpruner_dashboard.plans.plan_choice import PlanChoice
from torchpruner_dashboard.plans.plan_sight import PlanSight

COLUMNS = (
    Column("module", "Module", "name"),
    Column("width", "Width left", "measure"),
    Column("gone", "Goes", "number"),
    Column("bound", "Why", "line"),
)

_PICK = """(event) => {
  const point = event.target.closest('[data-percent]');
  if (point) emit(Number(point.dataset.percent));
}"""


class PlanOutcome:
    """Built once; the slider changes only what is in it. ``on_pick`` is called with the percent of a
    point of the frontier that was clicked."""

    def __init__(self, on_pick: Callable[[int], Any]) -> None:
        self._plan: Plan | None = None
        self._points: dict[int, FrontierPoint] = {}
        self._content = ui.element("div").classes("tp-stack").props('aria-live="polite"')
        with self._content:
            with ui.element("section").classes("tp-card").props('aria-label="Costs"'):
                with ui.row().classes("tp-row"):
                    self._title = ui.label().classes("tp-h2")
                    self._kept = ui.label().classes("tp-soft")
                self._problem = ui.label().classes("tp-soft")
                self._costs = ui.element("div").style("width: 100%")
                self._notes = ui.column().style("width: 100%; gap: 2px")
                self.actions = ui.row().classes("tp-row")
            beside = ui.element("div").classes("tp-beside")
            with beside:
                self._frontier = ui.element("section").classes("tp-card")
            with self._frontier.props('aria-label="Frontier"'):
                self._asked = ui.label().classes("tp-h2")
                # Built from numbers alone.
                self._picture = ui.html("", sanitize=False).style("width: 100%")
                self._picture.on("click", lambda event: on_pick(_percent(event)), js_handler=_PICK)
            with (
                beside,
                ui.element("section").classes("tp-card").props('aria-label="What bound the cut"'),
            ):
                ui.label("What bound the cut").classes("tp-h2")
                self._bounds = ui.element("div").style("width: 100%")
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

    def show_frontier(
        self, plan: Plan, points: Sequence[FrontierPoint], choice: PlanChoice
    ) -> None:
        """Show what the service answered for one cost, at all percents."""
        self._plan = plan
        self._points = {round(100 * point.fraction): point for point in points}
        self.choose(choice)

    def show_plan(
        self, plan: Plan, choice: PlanChoice, measured_on: Mapping[str, Any] | None = None
    ) -> None:
        """Show a plan by itself: several costs are limited, or a latency was measured on a machine."""
        self._plan, self._points = plan, {}
        self._show(PlanSight.of_plan(plan), choice, measured_on)

    def choose(self, choice: PlanChoice) -> None:
        """Show the chosen point of the frontier that is here already."""
        if choice.single is None or self._plan is None:
            return
        point = self._points.get(choice.single[1])
        if point is not None:
            self._show(PlanSight.of_point(self._plan, point), choice)

    def _show(
        self, sight: PlanSight, choice: PlanChoice, measured_on: Mapping[str, Any] | None = None
    ) -> None:
        self._content.classes(remove="tp-busy")
        self._content.set_visibility(True)
        self._title.text = choice.name
        kept = sight.score_kept
        self._kept.text = "" if kept is None else f"keeps {kept:.1%} of the importance"
        self._problem.text = sight.problem
        self._problem.set_visibility(bool(sight.problem))
        self._costs.clear()
        with self._costs:
            cost_rows(sight.costs)
        self._notes.clear()
        with self._notes:
            if sight.rounds:
                round_notes(sight.rounds, sight.costs["latency"]["after"], measured_on)
        self._draw_frontier(choice)
        rows = group_rows(sight)
        cut = sum(row["width"] < row["before"] for row in rows)
        self._counted.text = f"{cut} of {formatting.plural(len(rows), 'group')} are cut"
        self._table.set_rows(rows)
        self._bounds.clear()
        with self._bounds:
            for why, number in Counter(str(row["bound"]) for row in rows).most_common(6):
                with ui.row().classes("tp-row").style("flex-wrap: nowrap; align-items: baseline"):
                    ui.label(str(number)).style("min-width: 34px; text-align: right").classes(
                        "tp-h2"
                    )
                    ui.label(why).classes("tp-wrap")

    def _draw_frontier(self, choice: PlanChoice) -> None:
        self._frontier.set_visibility(bool(self._points) and choice.single is not None)
        if choice.single is None:
            return
        limit, percent = choice.single
        points = list(self._points.values())
        scored = any(point.score_kept is not None for point in points)
        self._asked.text = "What other budgets would keep" if scored else "Other budgets"
        self._picture.content = frontier_picture(points, limit, percent / 100)


def group_rows(sight: PlanSight) -> list[dict[str, Any]]:
    """One row a group; nothing where the budget cannot be met."""
    rows = []
    for number, (group, after, why) in enumerate(sight.rows()):
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
                "gone": group.before - after,
                "bound": why,
            }
        )
    return rows


def _percent(event: events.GenericEventArguments) -> int:
    return int(event.args if isinstance(event.args, int) else event.args[0])
