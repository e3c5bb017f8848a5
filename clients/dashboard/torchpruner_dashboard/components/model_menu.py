"""What else one can do with a model: copy its id, add weights, delete it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nicegui import events, run, ui

from torchpruner_client import AsyncRemoteModel
from torchpruner_dashboard.components.model_rows import display_name
from torchpruner_dashboard.components.notices import copy, error_panel, toast, toast_failure
from torchpruner_dashboard.failures import Failure, failure_of
from torchpruner_dashboard.visit import Visit


def model_menu(visit: Visit, model: AsyncRemoteModel) -> None:
    """The button with three dots."""
    weights = weights_dialog(visit, model)
    delete = _delete_dialog(visit, model)
    with ui.button(icon="more_vert").props('flat round dense aria-label="More"'), ui.menu():
        ui.menu_item("Who did what", lambda: ui.navigate.to(f"/audit?model={model.id}"))
        ui.menu_item("Copy the id", lambda: copy(model.id, "The model's id"))
        if visit.session.may("write"):
            if model.info.has_weights is False and model.info.format == "onnx":
                ui.menu_item("Add its weights", weights.open)
            ui.menu_item("Delete", delete.open)


def weights_dialog(visit: Visit, model: AsyncRemoteModel) -> ui.dialog:
    """Takes the whole ONNX file of a model that was uploaded without its weights."""
    with ui.dialog() as dialog, ui.card().classes("tp-card").style("max-width: 520px"):
        ui.label("Add the weights").classes("tp-h2")
        ui.label(
            "Give the whole ONNX file that this model's graph came from. A worker compares the "
            "two; the model keeps its id."
        ).classes("tp-soft")
        problem = ui.column().style("width: 100%")
        waiting = ui.linear_progress(show_value=False).props("indeterminate")
        waiting.set_visibility(False)

        async def received(event: events.UploadEventArguments) -> None:
            problem.clear()
            waiting.set_visibility(True)
            try:
                with tempfile.TemporaryDirectory(prefix="tp-dashboard-") as folder:
                    path = Path(folder, "whole.onnx")
                    await event.file.save(path)
                    await run.io_bound(_send, visit, model.id, path)
                await model.refresh()
            except Exception as error:
                with problem:
                    error_panel(failure_of(error))
            else:
                dialog.close()
                toast("The weights are there")
            finally:
                waiting.set_visibility(False)
                picker.reset()

        def rejected() -> None:
            problem.clear()
            with problem:
                error_panel(Failure("That is no ONNX file", "Its name must end in .onnx."))

        picker = ui.upload(
            label="Drop the ONNX file here",
            auto_upload=True,
            on_upload=received,
            on_rejected=rejected,
        )
        picker.props("accept=.onnx flat bordered").style("width: 100%")
        ui.button("Close", on_click=dialog.close).props("flat no-caps")
    return dialog


def _send(visit: Visit, model: str, path: Path) -> None:
    with visit.session.blocking_client() as client:
        client.model(model).add_weights(path)


def _delete_dialog(visit: Visit, model: AsyncRemoteModel) -> ui.dialog:
    with ui.dialog() as dialog, ui.card().classes("tp-card").style("max-width: 420px"):
        ui.label(f"Delete {display_name(model.info)}?").classes("tp-h2")
        ui.label("It is gone from the service for your whole tenant.").classes("tp-soft")

        async def delete() -> None:
            try:
                await model.delete()
            except Exception as error:
                toast_failure(error)
            else:
                visit.session.models.pop(model.id, None)
                ui.navigate.to("/")

        with ui.row():
            ui.button("Delete it", on_click=delete).props("unelevated no-caps color=negative")
            ui.button("Keep it", on_click=dialog.close).props("flat no-caps")
    return dialog
