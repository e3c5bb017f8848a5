"""Every model of the tenant; the place to upload one."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from torchpruner_client import (
    ModelInfo,
    NotFoundError,
    ServiceError,
    ServiceUnreachable,
    UnauthorizedError,
)
from torchpruner_dashboard.components.data_table import DataTable, search_field
from torchpruner_dashboard.components.frame import frame
from torchpruner_dashboard.components.model_rows import COLUMNS, model_rows
from torchpruner_dashboard.components.notices import (
    Early,
    Region,
    ask_for_key,
    empty_state,
    promptly,
)
from torchpruner_dashboard.components.upload_dialog import UploadDialog
from torchpruner_dashboard.visit import Desk, Visit

FIRST, REST = 25, 1000
"""Models of the first question, which is a page of the table, and of those that follow."""

POLL = 1.0
ENDED = {"ready", "failed", "cancelled"}


def install(desk: Desk) -> None:
    @ui.page("/")
    async def page() -> None:
        visit = desk.visit()
        models = ModelsPage(visit)
        early = await promptly(models.fetch)
        with frame(visit, "Models", "Models") as content:
            models.build(early)
            # A file that is dragged onto the page finds the place to drop it.
            content.on("dragenter", models.upload, throttle=1.0, js_handler=_WITH_FILES)


_WITH_FILES = "(event) => event.dataTransfer?.types.includes('Files') && emit()"


class ModelsPage:
    """The list, its search, its upload, and what is chosen for comparison."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._models: dict[str, ModelInfo] = {}
        self._table: DataTable | None = None
        self._region = Region(self.fetch, self._show, "Loading the models")

    def build(self, early: Early[bool]) -> None:
        """``early`` is a run of :meth:`fetch`."""
        self._upload = UploadDialog(self._visit, self._uploaded)
        with ui.row().classes("tp-row"):
            ui.html('<h1 class="tp-title">Models</h1>', sanitize=False)
            self._counted = ui.label().classes("tp-soft")
            ui.element("div").classes("tp-grow")
            self._tools = ui.row().classes("tp-row").style("width: auto")
            self._compare = ui.button("Compare", icon="compare_arrows", on_click=self._to_compare)
            self._compare.props("outline no-caps").set_enabled(False)
            self._compare.tooltip("Select two models or more")
            add = ui.button("Upload a model", icon="upload", on_click=self._upload.open)
            add.props("unelevated no-caps")
        self._region.build(early)
        ui.timer(POLL, self._poll)

    def upload(self) -> None:
        self._upload.open()

    async def fetch(self) -> bool:
        """Take the models as this session saw them last, else the first of them; return whether
        the list is to be asked for as a whole."""
        session = self._visit.session
        await session.check()
        if session.models:
            self._models = dict(session.models)
            return True
        page, cursor = await session.client.models_page(FIRST)
        self._models = {info.id: info for info in page}
        return cursor is not None

    def _show(self, again: bool) -> None:
        self._tools.clear()
        self._table = None
        if not self._models:
            self._counted.text = ""
            with empty_state(
                "No models yet",
                "Upload a TorchScript, ONNX or torch.export file to see what is coupled in it.",
                "hub",
            ):
                ui.button("Upload a model", icon="upload", on_click=self._upload.open).props(
                    "unelevated no-caps"
                )
            return
        self._table = DataTable(
            COLUMNS,
            model_rows(self._models),
            sort_by="created_at",
            descending=True,
            selection="multiple",
            empty="No model matches",
        )
        self._table.table.on_select(lambda: self._chosen_changed())
        with self._tools:
            search_field(self._table, "Search models")
        self._count()
        if again:
            ui.timer(0, self._refresh, once=True)

    async def _refresh(self) -> None:
        """Fetch the whole list; what is right already is not drawn again."""
        before, found = set(self._models), dict[str, ModelInfo]()
        cursor: str | None = None
        try:
            while True:
                page, cursor = await self._visit.session.client.models_page(REST, cursor)
                found |= {info.id: info for info in page}
                if cursor is None:
                    break
        except Exception as error:
            self._region.put(error)
            return
        uploaded = {key: info for key, info in self._models.items() if key not in before}
        self._models = uploaded | found
        self._visit.session.models = dict(self._models)
        if self._models:
            self._redraw()
        else:
            await self._region.reload()

    async def _poll(self) -> None:
        """Ask about the models that are still being built; the others do not change."""
        moving = [info for info in self._models.values() if info.state not in ENDED]
        for info in moving[:20]:
            try:
                model = await self._visit.session.client.model(info.id)
            except UnauthorizedError:
                ask_for_key()
                return
            except NotFoundError:
                del self._models[info.id]
            except (ServiceError, ServiceUnreachable):
                return
            else:
                self._models[info.id] = model.info
        if moving:
            self._redraw()

    async def _uploaded(self, info: ModelInfo) -> None:
        known = bool(self._models)
        # A file that was here already may have a new name now: the new word replaces the old.
        self._models = {info.id: info, **self._models, info.id: info}
        if known and self._table is not None:
            self._redraw()
        else:
            await self._region.reload()

    def _redraw(self) -> None:
        if self._table is not None:
            self._table.set_rows(model_rows(self._models))
            self._count()

    def _count(self) -> None:
        self._counted.text = f"{len(self._models)}"

    def _chosen(self) -> list[dict[str, Any]]:
        return [] if self._table is None else self._table.selected

    def _chosen_changed(self) -> None:
        self._compare.set_enabled(len(self._chosen()) > 1)

    def _to_compare(self) -> None:
        ui.navigate.to("/compare?models=" + ",".join(row["id"] for row in self._chosen()))
