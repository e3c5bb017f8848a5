"""Where a model came from and what came from it."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui

from torchpruner_client import AsyncRemoteModel, LineageEntry
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.notices import error_panel
from torchpruner_dashboard.failures import failure_of

SHOWN = 12
"""Children that are named; a sweep can leave hundreds."""


def lineage_line(model: AsyncRemoteModel) -> None:
    """The chain from the uploaded model to this one, and its children; nothing for a model that
    stands alone. It comes after the rest of the page, which does not need it."""
    box = ui.column().classes("tp-stack")

    async def load() -> None:
        try:
            ancestors, children = await model.family()
        except Exception as error:
            with box:
                error_panel(failure_of(error))
            return
        if not box.is_deleted:
            with box:
                _family(model.id, ancestors, children)

    ui.timer(0, load, once=True)


def _family(
    model: str, ancestors: Sequence[LineageEntry], children: Sequence[LineageEntry]
) -> None:
    if len(ancestors) < 2 and not children:
        return
    with ui.column().classes("tp-card"):
        with ui.row().classes("tp-row"):
            ui.label("Lineage").classes("tp-h2")
            ui.element("div").classes("tp-grow")
            family = [entry.id for entry in (*ancestors, *children)]
            ui.link("Compare them", "/compare?models=" + ",".join(family[:6]))
        with ui.row().classes("tp-row"):
            for number, entry in enumerate(ancestors):
                if number:
                    ui.icon("arrow_forward").classes("tp-soft")
                _entry(entry, entry.id == model, ancestors[0])
        if children:
            with ui.row().classes("tp-row"):
                ui.label("Derived from it:").classes("tp-soft")
                for entry in children[:SHOWN]:
                    _entry(entry, False, ancestors[0] if ancestors else entry)
                if len(children) > SHOWN:
                    ui.label(f"and {len(children) - SHOWN} more").classes("tp-soft")


def _entry(entry: LineageEntry, here: bool, root: LineageEntry) -> None:
    name = entry.name or f"{entry.id[:9]}…"
    with ui.column().style("gap: 0"):
        if here:
            ui.label(name).style("font-weight: 600").props('aria-current="page"')
        else:
            ui.link(name, f"/models/{entry.id}")
        note = formatting.count(entry.params)
        if root.params and entry.params is not None and entry.id != root.id:
            note += f" ({formatting.change(root.params, entry.params)})"
        ui.label(f"{note} parameters").classes("tp-soft tp-small")
