"""The audit trail: who did what, when, to which model."""

from __future__ import annotations

from nicegui import ui

from torchpruner_client import AuditEvent
from torchpruner_dashboard.components.data_table import DataTable, csv_button, search_field
from torchpruner_dashboard.components.event_rows import COLUMNS, event_rows
from torchpruner_dashboard.components.frame import frame
from torchpruner_dashboard.components.model_rows import display_name
from torchpruner_dashboard.components.notices import (
    Early,
    Region,
    empty_state,
    promptly,
    toast_failure,
)
from torchpruner_dashboard.visit import Desk, Visit

PAGE = 200
"""Events that are fetched at once."""

Found = tuple[list[AuditEvent], str | None]
"""Events, newest first, and the cursor of those before."""


def install(desk: Desk) -> None:
    @ui.page("/audit")
    async def page(model: str = "") -> None:
        visit = desk.visit()
        audit = AuditPage(visit, model)
        early = await promptly(audit.fetch)
        with frame(visit, "Audit", "Audit"):
            audit.build(early)


class AuditPage:
    """Newest first; older events are fetched when somebody asks for them."""

    def __init__(self, visit: Visit, model: str) -> None:
        self._visit = visit
        self._model = model
        self._events: list[AuditEvent] = []
        self._region = Region(self.fetch, self._show, "Loading the audit trail")

    def build(self, early: Early[Found]) -> None:
        with ui.row().classes("tp-row"):
            ui.html('<h1 class="tp-title">Audit</h1>', sanitize=False)
            if self._model:
                ui.link("of one model: show all", "/audit")
            ui.element("div").classes("tp-grow")
            self._tools = ui.row().classes("tp-row").style("width: auto")
        self._region.build(early)

    async def fetch(self) -> Found:
        session = self._visit.session
        await session.check()
        found = await session.client.audit_page(PAGE, model=self._model or None)
        known = {event.model for event in found[0]} - {None} - session.models.keys()
        if known:
            session.models |= {info.id: info for info in await session.client.models()}
        return found

    def _show(self, found: Found) -> None:
        self._events, self._cursor = list(found[0]), found[1]
        self._tools.clear()
        if not self._events:
            empty_state(
                "Nothing has happened yet",
                "Uploads, cuts, plans, names and deletions are written down here.",
                "history",
            )
            return
        self._table = DataTable(
            COLUMNS, self._rows(), page_size=25, sort_by="at", descending=True, empty="No match"
        )
        with self._tools:
            search_field(self._table, "Search events")
            csv_button(self._table, "audit.csv")
        self._older = ui.button("Load older events", on_click=self._more).props("outline no-caps")
        self._older.set_visibility(self._cursor is not None)

    async def _more(self) -> None:
        self._older.props(add="loading")
        try:
            found = await self._visit.session.client.audit_page(
                PAGE, self._cursor, model=self._model or None
            )
        except Exception as error:
            toast_failure(error)
            return
        finally:
            self._older.props(remove="loading")
        self._events += found[0]
        self._cursor = found[1]
        self._older.set_visibility(self._cursor is not None)
        self._table.set_rows(self._rows())

    def _rows(self) -> list[dict[str, object]]:
        models = self._visit.session.models
        names = {key: display_name(info) for key, info in models.items()}
        return event_rows(self._events, names)
