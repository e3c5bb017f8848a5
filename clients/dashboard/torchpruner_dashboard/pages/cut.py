"""Try a cut: choose an axis, move the slider, see at once what else must go and what it saves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated

from fastapi import Query
from nicegui import ui

from torchpruner_client import AsyncRemoteModel, CutResult, UnauthorizedError
from torchpruner_dashboard.components.basket import Basket
from torchpruner_dashboard.components.build_progress import build_progress
from torchpruner_dashboard.components.cut_actions import CutActions
from torchpruner_dashboard.components.cut_controls import CutControls
from torchpruner_dashboard.components.cut_outcome import CutOutcome
from torchpruner_dashboard.components.frame import frame
from torchpruner_dashboard.components.model_rows import display_name, weights_are_here
from torchpruner_dashboard.components.notices import (
    Early,
    Region,
    ask_for_key,
    empty_state,
    error_panel,
    promptly,
)
from torchpruner_dashboard.components.slice_rule import Orders
from torchpruner_dashboard.cuts.cut_address import CutAddress
from torchpruner_dashboard.failures import Failure, failure_of
from torchpruner_dashboard.latest_question import LatestQuestion
from torchpruner_dashboard.model_graphs import ModelGraph
from torchpruner_dashboard.visit import Desk, Visit

Found = tuple[AsyncRemoteModel, ModelGraph | None]
"""The model, and its graph once that is built."""

ADDRESS_SECONDS = 0.4
"""How often the browser's address follows: browsers refuse hundreds of changes a minute."""


def install(desk: Desk) -> None:
    @ui.page("/models/{model}/cut")
    async def page(
        model: str,
        node: str = "",
        dim: int = 0,
        index: str = "",
        granularity: str = "auto",
        protect: bool = False,
        add: Annotated[list[str] | None, Query()] = None,
    ) -> None:
        visit = desk.visit()
        mistake: Failure | None = None
        try:
            address = CutAddress.of_query(node, dim, index, granularity, protect, add or ())
        except ValueError as error:
            mistake, address = failure_of(error), CutAddress()
        cut = CutPage(visit, model, address)
        early = await promptly(cut.fetch)
        with frame(visit, "Cut", "Models"):
            if mistake is not None:
                error_panel(mistake)
            cut.build(early)


class CutPage:
    """Holds the address; every change of it is analysed, the latest one last."""

    def __init__(self, visit: Visit, model: str, address: CutAddress) -> None:
        self._visit = visit
        self._id = model
        self._address = address
        self._written = address
        self._analyse = LatestQuestion(lambda: self._ask(self._address))
        self._region = Region(self.fetch, self._show, "Loading the graph")

    def build(self, early: Early[Found]) -> None:
        self._region.build(early)

    async def fetch(self) -> Found:
        session = self._visit.session
        await session.check()
        model = await session.client.model(self._id)
        if model.info.state != "ready":
            return model, None
        return model, await session.shelf.graph(model)

    def _show(self, found: Found) -> None:
        model, graph = found
        name = display_name(model.info)
        ui.page_title(f"Cut {name} · torchpruner")
        with ui.row().classes("tp-row"):
            ui.label(f"Cut {name}").classes("tp-title").props('role="heading" aria-level="1"')
            ui.link("All about this model", f"/models/{model.id}")
            ui.link("Kept plans and cuts", f"/models/{model.id}/kept")
        if graph is None:
            build_progress(model, self._region.reload)
            return
        if not graph.outline.axes and not self._address.node:
            empty_state("Nothing to cut", "No axis of this model can be pruned.", "block")
            return
        self._model, self._graph = model, graph
        proposed = not self._address.requests and not self._address.node
        if proposed:
            self._address = _where_it_pays(graph, self._address)
        with ui.element("div").classes("tp-two"):
            with ui.element("div").classes("tp-stack tp-sticky"):
                self._controls = CutControls(
                    graph,
                    self._address,
                    self._changed,
                    self._to_basket,
                    *self._judge(model),
                    proposed=proposed,
                )
                self._basket = Basket(self._address.basket, self._basket_changed)
            with ui.element("div").classes("tp-stack"):
                self._outcome = CutOutcome(graph)
                self._actions = CutActions(self._visit, model, self._outcome)
        self._address = self._controls.address(self._address)
        ui.timer(ADDRESS_SECONDS, self._write_address)
        ui.timer(0, self._analyse, once=True)

    def _judge(
        self, model: AsyncRemoteModel
    ) -> tuple[Callable[[str], Awaitable[Orders]] | None, str]:
        """What orders the slices by importance, else why nothing does."""
        session = self._visit.session
        if not weights_are_here(model.info):
            return None, "The model's weights are not on the service, so no slice matters less."
        if not session.may("write"):
            return None, "To have slices judged by their weights takes a key that may write."
        return lambda importance: session.shelf.orders(model, importance), ""

    async def _changed(self, address: CutAddress) -> None:
        self._address = address.with_basket(self._address.basket)
        await self._analyse()

    async def _to_basket(self) -> None:
        current = self._address.current
        if current is None:
            return
        self._basket.add(current)
        self._controls.clear_index()
        self._address = replace(self._address, index=(), basket=self._basket.requests)
        await self._analyse()

    async def _basket_changed(self) -> None:
        self._address = self._address.with_basket(self._basket.requests)
        await self._analyse()

    async def _ask(self, address: CutAddress) -> None:
        if not address.requests:
            self._outcome.show_nothing()
            self._actions.show(address, None)
            return
        self._outcome.wait()
        result: CutResult | None = None
        try:
            result = await self._model.cut_analysis_many(
                address.requests,
                granularity=address.granularity,
                protect_io=address.protect_io,
            )
        except UnauthorizedError:
            ask_for_key()
        except Exception as error:
            if not self._analyse.superseded:
                self._outcome.show_failure(failure_of(error), self._analyse)
        else:
            self._outcome.show(result, address)
        self._controls.say_splits(result)
        self._actions.show(address, result)

    def _write_address(self) -> None:
        if self._address == self._written:
            return
        self._written = self._address
        query = self._address.query()
        ui.navigate.history.replace(f"/models/{self._id}/cut{'?' if query else ''}{query}")


def _where_it_pays(graph: ModelGraph, address: CutAddress) -> CutAddress:
    """Begin with an eighth of the axis whose slices save most, whole steps of it."""
    axis = graph.outline.dearest
    if axis is None:
        return address
    step = max(1, axis.step)
    count = min(max(step, axis.width // 8 // step * step), axis.width - 1)
    return replace(address, node=axis.node, dim=axis.dim, index=tuple(range(count)))
