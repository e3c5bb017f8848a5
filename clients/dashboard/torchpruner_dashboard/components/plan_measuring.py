"""Latency budgets: nothing is measured before somebody asks for it, and then one sees how far it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from torchpruner_client import AsyncRemoteModel, PlanRecord
from torchpruner_core.planning.plan import Plan
from torchpruner_dashboard.components.notices import error_panel, toast_failure
from torchpruner_dashboard.failures import failure_of
from torchpruner_dashboard.plans.plan_choice import PlanChoice
from torchpruner_dashboard.visit import Visit

LOOK = 0.4
RUNNING = {"queued", "running"}
STAGES = {
    "queued": "Waiting for a worker",
    "reading": "Reading the model",
    "reading weights": "Reading the weights",
    "planning": "Choosing widths",
    "measuring": "Measuring",
}


class PlanMeasuring:
    """``on_plan`` is awaited with the choice, its plan, and what that was measured on."""

    def __init__(
        self,
        visit: Visit,
        model: AsyncRemoteModel,
        on_plan: Callable[[PlanChoice, Plan, Mapping[str, Any] | None], Awaitable[None]],
    ) -> None:
        self._visit = visit
        self._model = model
        self._on_plan = on_plan
        self._choice = PlanChoice()
        self._running: dict[PlanChoice, Said] = {}
        with ui.element("section").classes("tp-card").props('aria-label="Measuring"') as self._card:
            self._title = ui.label().classes("tp-h2")
            self._text = ui.label().classes("tp-soft")
            self._bar = ui.linear_progress(0.0, show_value=False, size="8px")
            self._bar.props('rounded aria-label="Measurement"')
            self._stage = ui.label().classes("tp-soft tp-small").props('role="status"')
            self._problem = ui.column().style("width: 100%")
            with ui.row():
                self._start = ui.button("Measure and plan", icon="timer", on_click=self.measure)
                self._start.props("unelevated no-caps")
                self._cancel = ui.button("Cancel", on_click=self._stop).props("outline no-caps")
        self.hide()
        ui.timer(LOOK, self._look)

    def hide(self) -> None:
        self._card.set_visibility(False)

    async def show(self, choice: PlanChoice) -> None:
        """Offer to measure ``choice``; show it at once where that was measured before."""
        self._choice = choice
        self._problem.clear()
        self._card.set_visibility(True)
        self._title.text = choice.name
        self._text.text = (
            "The model and what is left of it are timed in turn on a worker until the limit is met: "
            "some seconds for a small network, minutes for a large one."
        )
        self._look()
        self._start.set_visibility(self._visit.session.may("write") and choice not in self._running)
        if choice not in self._running and await self._is_known(choice):
            await self.measure()

    async def measure(self) -> None:
        """Have it measured and planned; the answer is shown unless another choice was made meanwhile."""
        choice = self._choice
        if choice in self._running:
            return
        said = self._running[choice] = Said()
        self._problem.clear()
        self._start.set_visibility(False)
        self._look()
        try:
            async with self._visit.session.following_client(said) as client:
                model = await client.model(self._model.id)
                plan = await model.plan(choice.budget, **choice.options)
                record = await self._record(choice)
        except Exception as error:
            if choice == self._choice and not said.cancelled:
                with self._problem:
                    error_panel(failure_of(error))
        else:
            if choice == self._choice:
                self.hide()
                await self._on_plan(choice, plan, record.measured_on if record else None)
        finally:
            del self._running[choice]
            self._start.set_visibility(True)
            self._look()

    async def _is_known(self, choice: PlanChoice) -> bool:
        """Whether the service has this very plan."""
        try:
            record = await self._record(choice)
        except Exception:
            return False  # What is wrong is said when somebody asks for it.
        return record is not None and record.state == "ready"

    async def _record(self, choice: PlanChoice) -> PlanRecord | None:
        for record in await self._model.plans():
            asked = PlanChoice.of_record(record.budget, record.importance, record.rules)
            if asked == choice:
                return record
        return None

    async def _stop(self) -> None:
        said = self._running.get(self._choice)
        if said is None:
            return
        said.cancelled = True
        try:
            record = await self._record(self._choice)
            if record is not None and record.state in RUNNING:
                await self._model.delete_plan(record.id)
        except Exception as error:
            toast_failure(error)

    def _look(self) -> None:
        said = self._running.get(self._choice)
        for element in (self._bar, self._stage, self._cancel):
            element.set_visibility(said is not None)
        if said is not None:
            self._bar.value = said.percent / 100
            self._stage.text = f"{STAGES.get(said.stage, said.stage)}: {said.percent:.0f} %"


@dataclass(eq=False)
class Said:
    """What the SDK tells while the service works; read by the page's timer."""

    stage: str = "queued"
    percent: float = 0.0
    cancelled: bool = False

    def update(self, label: str, done: float, total: float, unit: str) -> None:
        self.stage = label.rpartition(": ")[2]
        self.percent = done

    def close(self) -> None: ...
