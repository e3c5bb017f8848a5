"""Plan: how cheap a model may become, and which widths that takes. Where one cost is limited the slider
moves over a frontier that was computed once, so every step is answered at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nicegui import ui

from torchpruner_client import AsyncRemoteModel, UnauthorizedError
from torchpruner_core.planning.plan import Plan
from torchpruner_dashboard.components.build_progress import build_progress
from torchpruner_dashboard.components.frame import frame
from torchpruner_dashboard.components.model_rows import display_name, weights_are_here
from torchpruner_dashboard.components.notices import (
    Early,
    Region,
    ask_for_key,
    passing_panel,
    promptly,
)
from torchpruner_dashboard.components.plan_actions import PlanActions
from torchpruner_dashboard.components.plan_controls import PlanControls
from torchpruner_dashboard.components.plan_measuring import PlanMeasuring
from torchpruner_dashboard.components.plan_outcome import PlanOutcome
from torchpruner_dashboard.failures import failure_of
from torchpruner_dashboard.latest_question import LatestQuestion
from torchpruner_dashboard.plans.plan_choice import FRACTIONS, STEPS, PlanChoice
from torchpruner_dashboard.visit import Desk, Visit


def install(desk: Desk) -> None:
    @ui.page("/models/{model}/plan")
    async def page(
        model: str,
        flops: int = 0,
        params: int = 0,
        latency: int = 0,
        bytes: int = 0,
        memory: int = 0,
        importance: str = "",
        round_to: int = 1,
        protect: str = "",
    ) -> None:
        visit = desk.visit()
        percents = {
            "flops": flops,
            "params": params,
            "latency": latency,
            "bytes": bytes,
            "memory": memory,
        }
        choice = PlanChoice.of_query(percents, importance, round_to, protect)
        plan = PlanPage(visit, model, choice)
        early = await promptly(plan.fetch)
        with frame(visit, "Plan", "Models"):
            plan.build(early)


class PlanPage:
    """Holds the choice; one question at a time, the latest one last."""

    def __init__(self, visit: Visit, model: str, choice: PlanChoice) -> None:
        self._visit = visit
        self._id = model
        self._choice = choice
        self._answered: tuple[Any, ...] | None = None
        self._ask = LatestQuestion(lambda: self._plan(self._choice))
        self._region = Region(self.fetch, self._show, "Loading the model")

    def build(self, early: Early[AsyncRemoteModel]) -> None:
        self._region.build(early)

    async def fetch(self) -> AsyncRemoteModel:
        session = self._visit.session
        await session.check()
        return await session.client.model(self._id)

    def _show(self, model: AsyncRemoteModel) -> None:
        name = display_name(model.info)
        ui.page_title(f"Plan {name} · torchpruner")
        with ui.row().classes("tp-row"):
            ui.label(f"Plan {name}").classes("tp-title").props('role="heading" aria-level="1"')
            ui.link("All about this model", f"/models/{model.id}")
            ui.link("Kept plans and cuts", f"/models/{model.id}/kept")
        if model.info.state != "ready":
            build_progress(model, self._region.reload)
            return
        self._model = model
        weights = weights_are_here(model.info)
        self._choice = self._choice.with_importance(weights)
        with ui.element("div").classes("tp-two"):
            with ui.element("div").classes("tp-stack tp-sticky"):
                self._controls = PlanControls(self._choice, weights, self._changed)
            with ui.element("div").classes("tp-stack"):
                self._problem = ui.column().classes("tp-stack")
                self._measuring = PlanMeasuring(self._visit, model, self._measured)
                self._outcome = PlanOutcome(self._controls.choose)
                self._actions = PlanActions(self._visit, model, self._outcome.actions)
        self._choice = self._controls.choice()
        ui.timer(0, self._ask, once=True)

    async def _changed(self, choice: PlanChoice) -> None:
        self._choice = choice
        ui.navigate.history.replace(f"/models/{self._id}/plan?{choice.query()}")
        if choice.question == self._answered:
            self._outcome.choose(choice)
            self._actions.show(choice)
            return
        await self._ask()

    async def _plan(self, choice: PlanChoice) -> None:
        if choice.measured:
            self._answered = None
            self._problem.clear()
            self._outcome.hide()
            await self._measuring.show(choice)
            return
        self._measuring.hide()
        self._outcome.wait()
        try:
            if choice.single is not None:
                plan, frontier = await self._model.plan_with_frontier(
                    {choice.single[0]: f"{STEPS[0]}%"}, FRACTIONS, **choice.options
                )
            else:
                plan, frontier = await self._model.plan(choice.budget, **choice.options), []
        except UnauthorizedError:
            ask_for_key()
            return
        except Exception as error:
            self._answered = None
            self._outcome.hide()
            self._problem.clear()
            with self._problem:
                passing_panel(failure_of(error), self._ask)
            return
        if choice.question != self._choice.question:
            return  # Another question waits: its answer is shown.
        self._problem.clear()
        self._answered = choice.question
        if frontier:
            self._outcome.show_frontier(plan, frontier, self._choice)
        else:
            self._outcome.show_plan(plan, choice)
        self._actions.show(self._choice)

    async def _measured(
        self, choice: PlanChoice, plan: Plan, measured_on: Mapping[str, Any] | None
    ) -> None:
        self._answered = choice.question
        self._outcome.show_plan(plan, choice, measured_on)
        self._actions.show(choice)
