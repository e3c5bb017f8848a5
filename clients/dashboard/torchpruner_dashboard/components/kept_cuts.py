"""Cuts that somebody kept under a name: to open again, to remove, and to compare side by side."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from nicegui import events, ui

from torchpruner_client import AsyncRemoteModel, SavedCut
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.data_table import Column, DataTable
from torchpruner_dashboard.components.kept_plans import MOST
from torchpruner_dashboard.components.notices import empty_state, toast, toast_failure
from torchpruner_dashboard.cuts.cut_address import CutAddress

COLUMNS = (
    Column("name", "Cut", "name"),
    Column("params", "Parameters", "measure"),
    Column("flops", "FLOPs", "measure"),
    Column("created_at", "Age", "number"),
    Column("open", "", "action"),
    Column("action", "", "action"),
)


class KeptCuts:
    """``on_chosen`` is awaited with the cuts to compare, ``on_removed`` when one is gone."""

    def __init__(
        self,
        model: AsyncRemoteModel,
        cuts: Sequence[SavedCut],
        may_write: bool,
        on_chosen: Callable[[list[SavedCut]], Awaitable[None]],
        on_removed: Callable[[], Awaitable[None]],
    ) -> None:
        self._model = model
        self._on_removed = on_removed
        with ui.element("section").classes("tp-stack").props('aria-label="Kept cuts"'):
            ui.label("Cuts").classes("tp-h2")
            if not cuts:
                empty_state(
                    "No cut is kept yet",
                    "“Keep” on the cut page keeps a cut here under a name.",
                    "content_cut",
                )
                return
            rows = [cut_row(cut, may_write) for cut in cuts]
            self._table = DataTable(COLUMNS, rows, page_size=10, selection="multiple")
            self._table.table.on("action", self._act)
            known = {cut.id: cut for cut in cuts}

            async def chosen() -> None:
                await on_chosen([known[row["id"]] for row in self._table.selected][:MOST])

            self._table.table.on_select(lambda: chosen())

    async def _act(self, event: events.GenericEventArguments) -> None:
        cut, action = str(event.args[0]), str(event.args[1])
        try:
            if action == "open":
                asked = (await self._model.saved_cut(cut)).requested
                ui.navigate.to(f"/models/{self._model.id}/cut?{_address(asked).query()}")
                return
            await self._model.delete_cut(cut)
        except Exception as error:
            toast_failure(error)
        else:
            toast("The cut is removed", "info")
            await self._on_removed()


def _address(asked: Sequence[Any]) -> CutAddress:
    """The cut page's address of what was asked: one cut is tried, several are a basket."""
    *basket, last = asked
    return CutAddress(last.node, last.dim, tuple(last.index), basket=tuple(basket))


def cut_row(cut: SavedCut, may_write: bool) -> dict[str, Any]:
    """One cut as a row."""
    row: dict[str, Any] = {
        "id": cut.id,
        "name": cut.name,
        "name_sub": cut.note,
        "created_at": cut.created_at,
        "created_at_text": formatting.age(cut.created_at),
        "open": "open",
        "open_text": "Open",
        "action": "remove",
        "action_text": "Remove" if may_write else None,
    }
    sizes = {
        "params": (cut.params_before, cut.params_after, formatting.count),
        "flops": (cut.flops_before, cut.flops_after, formatting.flops),
    }
    for name, (before, after, text) in sizes.items():
        row[name] = after
        row[f"{name}_text"] = text(after)
        row[f"{name}_bar"] = formatting.share(after, before)
        row[f"{name}_sub"] = formatting.change(before, after)
    return row
