"""What a cut does: savings, warnings, the picture, the affected parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

from torchpruner_client import CutResult
from torchpruner_dashboard.components.affected_table import AffectedTable
from torchpruner_dashboard.components.cut_notes import cut_notes
from torchpruner_dashboard.components.notices import empty_state, passing_panel
from torchpruner_dashboard.components.savings import Savings
from torchpruner_dashboard.cuts.cut_address import CutAddress
from torchpruner_dashboard.cuts.picture import ROLES, picture, roles_in, summary
from torchpruner_dashboard.cuts.reach import reach_of
from torchpruner_dashboard.failures import Failure
from torchpruner_dashboard.model_graphs import ModelGraph


class CutOutcome:
    """Built once; each result only changes what is in it, so that a slider step is quick."""

    def __init__(self, graph: ModelGraph) -> None:
        self._graph = graph
        self._nothing = empty_state(
            "Choose slices to remove",
            "Move the slider or type indices: what else must go appears here at once.",
            "content_cut",
        )
        self._problem = ui.column().classes("tp-stack")
        self._content = ui.element("div").classes("tp-stack").props('aria-live="polite"')
        with self._content:
            with ui.element("section").classes("tp-card").props('aria-label="Savings"'):
                self._title = ui.label().classes("tp-h2")
                self.savings = Savings()
                self.actions = ui.row().classes("tp-row")
            self._notes = ui.column().classes("tp-stack").style("gap: 8px")
            with ui.element("section").classes("tp-card").props('aria-label="Reach"'):
                with ui.row().classes("tp-row"):
                    ui.label("Where the cut reaches").classes("tp-h2")
                    self._summary = ui.label().classes("tp-soft tp-small")
                self._legend = ui.html("", sanitize=False).classes("tp-legend")
                with ui.element("div").classes("tp-scroll"):
                    # Built here with every name escaped; sanitising would cost as much again.
                    self._picture = ui.html("", sanitize=False)
            self._affected = AffectedTable(graph)
        self._content.set_visibility(False)

    def wait(self) -> None:
        """A question is under way: what is shown is about to change."""
        self._content.classes("tp-busy")

    def show_nothing(self) -> None:
        self._switch(nothing=True)

    def show_failure(self, failure: Failure, retry: Callable[[], Any]) -> None:
        self._switch(problem=True)
        with self._problem:
            passing_panel(failure, retry)

    def show(self, result: CutResult, address: CutAddress) -> None:
        self._switch(content=True)
        number = len(address.requests)
        self._title.text = "This cut" if number == 1 else f"{number} cuts together"
        self.savings.show(result)
        self._notes.clear()
        with self._notes:
            cut_notes(result)
        reach = reach_of(result, self._graph)
        self._summary.text = summary(reach) + (" Modules are merged." if reach.merged else "")
        self._legend.content = "".join(
            f"<span>{ROLES[role][1]} {ROLES[role][2]}</span>" for role in roles_in(reach)
        )
        self._picture.content = picture(reach)
        self._affected.show(result)

    def _switch(
        self, *, nothing: bool = False, problem: bool = False, content: bool = False
    ) -> None:
        self._content.classes(remove="tp-busy")
        self._problem.clear()
        self._nothing.set_visibility(nothing)
        self._problem.set_visibility(problem)
        self._content.set_visibility(content)
