"""What somebody kept of a model: plans and cuts with names, to open again and to compare."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from nicegui import ui

from torchpruner_client import AsyncRemoteModel, PlanRecord, SavedCut
from torchpruner_dashboard.components.cut_comparison import cut_comparison
from torchpruner_dashboard.components.frame import frame
from torchpruner_dashboard.components.kept_cuts import KeptCuts
from torchpruner_dashboard.components.kept_plans import MOST, KeptPlans
from torchpruner_dashboard.components.model_rows import display_name
from torchpruner_dashboard.components.notices import Early, Region, error_panel, promptly
from torchpruner_dashboard.components.plan_comparison import plan_comparison
from torchpruner_dashboard.failures import failure_of
from torchpruner_dashboard.visit import Desk, Visit


@dataclass(frozen=True)
class Kept:
    """What the service has of the model."""

    model: AsyncRemoteModel
    plans: list[PlanRecord]
    cuts: list[SavedCut]


def install(desk: Desk) -> None:
    @ui.page("/models/{model}/kept")
    async def page(model: str, plans: str = "") -> None:
        visit = desk.visit()
        chosen = list(dict.fromkeys(filter(None, plans.split(","))))[:MOST]
        kept = KeptPage(visit, model, chosen)
        early = await promptly(kept.fetch)
        with frame(visit, "Kept", "Models"):
            kept.build(early)


class KeptPage:
    """The plans that are compared are in the address."""

    def __init__(self, visit: Visit, model: str, chosen: list[str]) -> None:
        self._visit = visit
        self._id = model
        self._chosen = chosen
        self._region = Region(self.fetch, self._show, "Loading what is kept")

    def build(self, early: Early[Kept]) -> None:
        self._region.build(early)

    async def fetch(self) -> Kept:
        session = self._visit.session
        await session.check()
        model = await session.client.model(self._id)
        plans, cuts = await asyncio.gather(model.plans(), model.saved_cuts())
        return Kept(model, [record for record in plans if record.name], cuts)

    def _show(self, kept: Kept) -> None:
        name = display_name(kept.model.info)
        ui.page_title(f"Kept of {name} · torchpruner")
        with ui.row().classes("tp-row"):
            title = ui.label(f"Kept plans and cuts of {name}").classes("tp-title")
            title.props('role="heading" aria-level="1"')
            ui.link("All about this model", f"/models/{self._id}")
            ui.link("Make a plan", f"/models/{self._id}/plan")
        self._kept = kept
        may_write = self._visit.session.may("write")
        KeptPlans(kept.model, kept.plans, may_write, self._compare, self._region.reload)
        self._beside = ui.column().classes("tp-stack")
        KeptCuts(kept.model, kept.cuts, may_write, self._compare_cuts, self._region.reload)
        self._cuts_beside = ui.column().classes("tp-stack")
        if self._chosen:
            ui.timer(0, lambda: self._compare(self._chosen), once=True)

    async def _compare(self, chosen: list[str]) -> None:
        self._chosen = chosen
        query = f"?plans={','.join(chosen)}" if chosen else ""
        ui.navigate.history.replace(f"/models/{self._id}/kept{query}")
        records = {record.id: record for record in self._kept.plans}
        chosen = [each for each in chosen if each in records]
        if len(chosen) < 2:
            self._beside.clear()
            return
        try:
            plans = await asyncio.gather(*(self._kept.model.saved_plan(each) for each in chosen))
        except Exception as error:
            self._beside.clear()
            with self._beside:
                error_panel(failure_of(error))
            return
        if chosen == self._chosen:
            self._beside.clear()
            with self._beside:
                plan_comparison(list(zip(map(records.__getitem__, chosen), plans, strict=True)))

    async def _compare_cuts(self, chosen: list[SavedCut]) -> None:
        self._chosen_cuts = chosen
        results = []
        if len(chosen) > 1:
            try:
                asked = (self._kept.model.saved_cut(cut.id) for cut in chosen)
                results = await asyncio.gather(*asked)
            except Exception as error:
                self._cuts_beside.clear()
                with self._cuts_beside:
                    error_panel(failure_of(error))
                return
        if chosen == self._chosen_cuts:
            self._cuts_beside.clear()
            if results:
                with self._cuts_beside:
                    cut_comparison(list(zip(chosen, results, strict=True)))
