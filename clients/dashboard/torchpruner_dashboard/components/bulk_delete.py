"""Several models at once: asked once more, then removed, and what could not be is named."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from nicegui import ui

from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.notices import error_panel, toast
from torchpruner_dashboard.failures import failure_of, problem_failure
from torchpruner_dashboard.sessions import Session

Model = tuple[str, str]
"""Id and name."""


class BulkDelete:
    """``on_removed`` is awaited with the ids that are gone."""

    def __init__(
        self, session: Session, on_removed: Callable[[list[str]], Awaitable[None]]
    ) -> None:
        self._session = session
        self._on_removed = on_removed
        self._chosen: Sequence[Model] = ()
        with ui.dialog() as self._dialog, ui.card().classes("tp-card").style("max-width: 460px"):
            self._title = ui.label().classes("tp-h2")
            self._names = ui.label().classes("tp-wrap")
            ui.label("They are gone from the service for your whole tenant.").classes("tp-soft")
            self._problem = ui.column().style("width: 100%")
            with ui.row():
                self._button = ui.button("Delete them", on_click=self._delete)
                self._button.props("unelevated no-caps color=negative")
                ui.button("Keep them", on_click=self._dialog.close).props("flat no-caps")

    def ask(self, chosen: Sequence[Model]) -> None:
        """Ask whether these models are to go."""
        self._chosen = chosen
        self._problem.clear()
        self._title.text = f"Delete {formatting.plural(len(chosen), 'model')}?"
        self._names.text = formatting.listed((name for _, name in chosen), 8)
        self._dialog.open()

    async def _delete(self) -> None:
        self._problem.clear()
        self._button.props(add="loading")
        names = dict(self._chosen)
        try:
            results = await self._session.client.delete_models(list(names))
        except Exception as error:
            with self._problem:
                error_panel(failure_of(error))
            return
        finally:
            self._button.props(remove="loading")
        gone = [each.id for each in results if each.removed]
        kept = [each for each in results if not each.removed]
        for each in gone:
            self._session.models.pop(each, None)
        if gone:
            toast(f"{formatting.plural(len(gone), 'model')} deleted")
        await self._on_removed(gone)
        if not kept:
            self._dialog.close()
        with self._problem:
            for left in kept[:5]:
                failure = problem_failure(left.problem)
                ui.label(f"{names[left.id]} stays: {failure.detail}").classes("tp-wrap")
