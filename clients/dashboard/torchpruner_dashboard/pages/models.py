"""Every model of the tenant; the place to upload one."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from torchpruner_client import (
    ModelInfo,
    NotFoundError,
    ServiceError,
    ServiceUnreachable,
    UnauthorizedError,
)
from torchpruner_dashboard.components.bulk_delete import BulkDelete
from torchpruner_dashboard.components.data_table import DataTable, csv_button, search_field
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
    async def page(tag: str = "") -> None:
        visit = desk.visit()
        models = ModelsPage(visit, tag)
        early = await promptly(models.fetch)
        with frame(visit, "Models", "Models") as content:
            models.build(early)
            # A file that is dragged onto the page finds the place to drop it.
            content.on("dragenter", models.upload, throttle=1.0, js_handler=_WITH_FILES)


_WITH_FILES = "(event) => event.dataTransfer?.types.includes('Files') && emit()"


class ModelsPage:
    """The list, its search, its upload, and what is chosen for comparison."""

    def __init__(self, visit: Visit, tag: str) -> None:
        self._visit = visit
        self._tag = tag
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
            self._delete = ui.button(icon="delete", on_click=self._ask_to_delete)
            self._delete.props('outline no-caps aria-label="Delete the selected models"')
            self._delete.tooltip("Delete the selected models").set_enabled(False)
            self._bulk = BulkDelete(self._visit.session, self._removed)
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
            self._rows(),
            sort_by="created_at",
            descending=True,
            selection="multiple",
            empty="No model matches",
        )
        self._table.table.on_select(lambda: self._chosen_changed())
        with self._tools:
            search_field(self._table, "Search models")
            self._tags = ui.select([], label="Tag", value=None, clearable=True)
            self._tags.props("outlined dense options-dense").style("min-width: 130px")
            self._tags.on_value_change(self._tag_changed)
            csv_button(self._table, "models.csv")
        self._offer_tags()
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
            self._offer_tags()
            self._table.set_rows(self._rows())
            self._count()

    def _rows(self) -> list[dict[str, Any]]:
        rows = model_rows(self._models)
        return (
            [row for row in rows if self._tag in self._models[row["id"]].tags]
            if self._tag
            else rows
        )

    def _offer_tags(self) -> None:
        """The tags that models have; no field where none has any."""
        tags = sorted(
            {tag for info in self._models.values() for tag in info.tags} | {self._tag} - {""}
        )
        if tags != self._tags.options:
            self._tags.set_options(tags, value=self._tag or None)
        self._tags.set_visibility(bool(tags))

    def _tag_changed(self) -> None:
        tag = str(self._tags.value or "")
        if tag != self._tag:
            self._tag = tag
            query = f"?{urlencode({'tag': tag})}" if tag else ""
            ui.navigate.history.replace(f"/{query}")
            self._redraw()

    def _count(self) -> None:
        shown, known = len(self._rows()), len(self._models)
        self._counted.text = f"{known}" if shown == known else f"{shown} of {known}"

    def _chosen(self) -> list[dict[str, Any]]:
        return [] if self._table is None else self._table.selected

    def _chosen_changed(self) -> None:
        self._compare.set_enabled(len(self._chosen()) > 1)
        may_delete = bool(self._chosen()) and self._visit.session.may("write")
        self._delete.set_enabled(may_delete)

    def _ask_to_delete(self) -> None:
        self._bulk.ask([(row["id"], row["name"]) for row in self._chosen()])

    async def _removed(self, gone: list[str]) -> None:
        for each in gone:
            self._models.pop(each, None)
        if self._table is not None:
            self._table.table.selected = []
        self._chosen_changed()
        if self._models:
            self._redraw()
        else:
            await self._region.reload()

    def _to_compare(self) -> None:
        ui.navigate.to("/compare?models=" + ",".join(row["id"] for row in self._chosen()))
