"""Cuts that are collected to be made together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from nicegui import ui

from torchpruner_client import CutRequest
from torchpruner_dashboard import formatting
from torchpruner_dashboard.cuts.index_text import indices_text


class Basket:
    """A list of cuts; ``on_change`` is awaited when the person removes some."""

    def __init__(
        self, start: Sequence[CutRequest], on_change: Callable[[], Awaitable[None]]
    ) -> None:
        self._requests = list(start)
        self._on_change = on_change
        with ui.element("section").classes("tp-card").props('aria-label="Basket"'):
            with ui.row().classes("tp-row"):
                ui.icon("shopping_basket", size="20px").classes("tp-soft")
                self._title = ui.label().classes("tp-h2")
                ui.element("div").classes("tp-grow")
                self._empty = ui.button("Empty it", on_click=self._remove_all)
                self._empty.props("flat dense no-caps")
            self._list = ui.column().style("width: 100%; gap: 4px")
        self._draw()

    @property
    def requests(self) -> tuple[CutRequest, ...]:
        return tuple(self._requests)

    def add(self, request: CutRequest) -> None:
        """Put a cut in; one of the same axis is joined with it."""
        for position, known in enumerate(self._requests):
            if (known.node, known.dim) == (request.node, request.dim):
                index = tuple(sorted({*known.index, *request.index}))
                self._requests[position] = CutRequest(known.node, known.dim, index)
                break
        else:
            self._requests.append(request)
        self._draw()

    async def _remove(self, request: CutRequest) -> None:
        self._requests.remove(request)
        self._draw()
        await self._on_change()

    async def _remove_all(self) -> None:
        self._requests.clear()
        self._draw()
        await self._on_change()

    def _draw(self) -> None:
        number = len(self._requests)
        self._title.text = f"Basket: {formatting.plural(number, 'cut')}" if number else "Basket"
        self._empty.set_visibility(bool(number))
        self._list.clear()
        with self._list:
            if not number:
                ui.label("Add cuts here to analyse them together.").classes("tp-soft tp-small")
            for request in self._requests:
                self._row(request)

    def _row(self, request: CutRequest) -> None:
        with ui.row().classes("tp-row").style("flex-wrap: nowrap"):
            with ui.column().classes("tp-grow").style("gap: 0"):
                ui.label(request.node.removeprefix("self.")).classes("tp-wrap tp-small")
                ui.label(f"axis {request.dim}: {_short(indices_text(request.index))}").classes(
                    "tp-soft tp-small"
                )
            button = ui.button(icon="close", on_click=lambda: self._remove(request))
            button.props(f'flat round dense size=sm aria-label="Remove {request.node}"')


def _short(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"
