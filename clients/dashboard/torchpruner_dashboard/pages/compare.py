"""Models side by side: parameters, FLOPs, latency, and the widths that differ."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from nicegui import ui

from torchpruner_client import AsyncRemoteModel, ModelInfo, NotFoundError
from torchpruner_dashboard.components.comparison import Side, comparison_chart, comparison_table
from torchpruner_dashboard.components.frame import frame
from torchpruner_dashboard.components.model_rows import display_name
from torchpruner_dashboard.components.notices import (
    Early,
    Region,
    empty_state,
    promptly,
    toast_failure,
)
from torchpruner_dashboard.components.width_table import width_table
from torchpruner_dashboard.latencies import of_model
from torchpruner_dashboard.visit import Desk, Visit

MOST = 6

Found = tuple[list[ModelInfo], list[Side]]
"""The models to choose from, and the chosen ones."""


def install(desk: Desk) -> None:
    @ui.page("/compare")
    async def page(models: str = "") -> None:
        visit = desk.visit()
        chosen = list(dict.fromkeys(filter(None, models.split(","))))[:MOST]
        compare = ComparePage(visit, chosen)
        early = await promptly(compare.fetch)
        with frame(visit, "Compare", "Compare"):
            compare.build(early)


class ComparePage:
    """Chosen models are in the address; the first is what the others are compared with."""

    def __init__(self, visit: Visit, chosen: list[str]) -> None:
        self._visit = visit
        self._chosen = chosen
        self._region = Region(self.fetch, self._show, "Loading the models")

    def build(self, early: Early[Found]) -> None:
        ui.html('<h1 class="tp-title">Compare</h1>', sanitize=False)
        self._picker = ui.column().classes("tp-stack")
        self._region.build(early)

    async def fetch(self) -> Found:
        session = self._visit.session
        await session.check()
        client = session.client
        known, models = await asyncio.gather(
            client.models(),
            asyncio.gather(*(client.model(name) for name in self._chosen)),
        )
        sides = await asyncio.gather(*(self._side(model) for model in models))
        return known, list(sides)

    async def _side(self, model: AsyncRemoteModel) -> Side:
        session = self._visit.session
        graph = await session.shelf.graph(model) if model.info.state == "ready" else None
        parent = None
        if model.info.parent:
            with suppress(NotFoundError):
                parent = await session.client.model(model.info.parent)
        return Side(model, graph, await of_model(model, parent))

    def _show(self, found: Found) -> None:
        known, sides = found
        self._pick(known)
        ready = [side for side in sides if side.graph is not None]
        if len(ready) < 2:
            empty_state(
                "Choose two models or more",
                "Pick them above. Derived models and what they came from compare best: their "
                "modules have the same names.",
                "compare_arrows",
            )
            return
        comparison_table(ready, self._measure if self._visit.session.may("write") else None)
        comparison_chart(ready)
        width_table(ready)

    def _pick(self, known: list[ModelInfo]) -> None:
        ready = {info.id: display_name(info) for info in known if info.state == "ready"}
        for info in known:
            if info.id in ready and info.parent:
                ready[info.id] += f"  ← {ready.get(info.parent, info.parent[:9])}"
        self._picker.clear()
        with self._picker:
            field = ui.select(
                ready,
                label="Models",
                multiple=True,
                with_input=True,
                value=[name for name in self._chosen if name in ready],
            )
            field.props(f"outlined dense use-chips options-dense max-values={MOST}")
            field.style("width: 100%").on_value_change(lambda event: self._choose(event.value))

    async def _choose(self, chosen: list[str]) -> None:
        self._chosen = list(chosen)
        ui.navigate.history.replace("/compare?models=" + ",".join(self._chosen))
        await self._region.reload()

    async def _measure(self, side: Side) -> None:
        """Measure one model and show the page again with the number."""
        try:
            await side.model.latency(None)
        except Exception as error:
            toast_failure(error)
            return
        await self._region.reload()
