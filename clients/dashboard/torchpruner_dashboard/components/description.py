"""What people wrote about a model: its name, a note, tags; changed where they stand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from nicegui import ui

from torchpruner_client import AsyncRemoteModel, ChangedMeanwhile
from torchpruner_dashboard.components.model_rows import display_name
from torchpruner_dashboard.components.notices import error_panel, toast, toast_failure
from torchpruner_dashboard.failures import failure_of
from torchpruner_dashboard.visit import Visit


class Description:
    """Note and tags beneath the title, and the form that changes them and the name. ``on_change`` is
    awaited when something was changed, by this person or another."""

    def __init__(
        self, visit: Visit, model: AsyncRemoteModel, on_change: Callable[[], Awaitable[None]]
    ) -> None:
        self._visit = visit
        self._model = model
        self._on_change = on_change
        self._box = ui.column().classes("tp-stack").style("gap: 8px")
        self._draw()

    def edit(self) -> None:
        """Put the form in the place of what is written."""
        info = self._model.info
        self._box.clear()
        self._box.set_visibility(True)
        with self._box, ui.element("form").classes("tp-card tp-stack") as form:
            form.props('aria-label="Description"').on("submit", self._save, js_handler=_SUBMIT)
            self._name = ui.input("Name", value=info.name or "").props("outlined dense autofocus")
            self._tags = ui.input("Tags", value=", ".join(info.tags))
            self._tags.props('outlined dense hint="With commas between"')
            self._note = ui.textarea("Note", value=info.note or "").props("outlined dense autogrow")
            for field in (self._name, self._tags, self._note):
                field.style("width: 100%; max-width: 640px")
            self._problem = ui.column().style("width: 100%")
            with ui.row():
                ui.button("Save", icon="check").props('unelevated no-caps type="submit"')
                ui.button("Cancel", on_click=self._draw).props("flat no-caps")

    def _draw(self) -> None:
        info = self._model.info
        self._box.clear()
        self._box.set_visibility(bool(info.note or info.tags))
        with self._box:
            if info.note:
                ui.label(info.note).classes("tp-wrap").style("white-space: pre-line")
            if info.tags:
                with ui.row().style("gap: 6px"):
                    for tag in info.tags:
                        address = f"/?{urlencode({'tag': tag})}"
                        ui.link(tag, address).classes("tp-tag").tooltip("Models with this tag")

    async def _save(self) -> None:
        info = self._model.info
        name = str(self._name.value or "").strip() or None
        note = str(self._note.value or "").strip() or None
        tags = [tag.strip() for tag in str(self._tags.value or "").split(",") if tag.strip()]
        self._problem.clear()
        try:
            changed = await self._model.describe(
                name=name, note=note, tags=tags, revision=info.revision or None
            )
        except ChangedMeanwhile as error:
            toast_failure(error)
            await self._on_change()
        except Exception as error:
            with self._problem:
                error_panel(failure_of(error))
        else:
            if changed.id in self._visit.session.models:
                self._visit.session.models[changed.id] = changed
            toast(f"{display_name(changed)} is saved")
            await self._on_change()


_SUBMIT = "(event) => { event.preventDefault(); emit(); }"
