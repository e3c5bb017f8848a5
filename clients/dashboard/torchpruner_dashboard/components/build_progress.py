"""A model without a graph: how far it is, or why it will never have one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import background_tasks, ui

from torchpruner_client import (
    AsyncRemoteModel,
    NotFoundError,
    ServiceError,
    ServiceUnreachable,
    UnauthorizedError,
)
from torchpruner_dashboard.components.notices import error_panel
from torchpruner_dashboard.failures import Failure, failure_of, problem_failure
from torchpruner_dashboard.input_shapes import parse_shapes, shapes_text

POLL = 0.5


def build_progress(model: AsyncRemoteModel, when_ready: Callable[[], Awaitable[None]]) -> None:
    """Show the state of the build and follow it; ``when_ready`` is awaited at its end, which may be
    that the model is gone."""
    if model.info.state == "failed":
        error_panel(problem_failure(model.info.problem))
        if model.info.blob is not None and not model.info.parent:
            _other_shapes(model)
        return
    if model.info.state == "cancelled":
        error_panel(
            Failure("The build was cancelled", "This model has no graph.", "Upload it again.")
        )
        return
    with ui.column().classes("tp-card"):
        ui.label("The graph is being built").classes("tp-h2")
        bar = ui.linear_progress(model.info.percent / 100, show_value=False, size="8px")
        bar.props('rounded aria-label="Build"')
        stage = ui.label(model.info.message or model.info.stage).classes("tp-soft")

    def finish() -> None:
        # Not awaited here: it takes away what this timer stands in, and the timer's own call with it.
        background_tasks.create(_done(when_ready))

    async def look() -> None:
        try:
            info = await model.refresh()
        except (NotFoundError, UnauthorizedError):
            timer.cancel()
            finish()
            return
        except (ServiceError, ServiceUnreachable):
            stage.text = "The service does not answer at the moment"
            return
        bar.value = info.percent / 100
        stage.text = info.message or info.stage
        if info.state not in {"queued", "running"}:
            timer.cancel()
            finish()

    timer = ui.timer(POLL, look)


async def _done(when_ready: Callable[[], Awaitable[None]]) -> None:
    await when_ready()


def _other_shapes(model: AsyncRemoteModel) -> None:
    """The file is here already: shapes may be all that was wrong."""
    with ui.column().classes("tp-card"):
        ui.label("Try it with other input shapes").classes("tp-h2")
        shapes = ui.textarea("Input shapes", value=shapes_text(model.info.inputs))
        shapes.props('outlined dense autogrow hint="One input a line: 1x3x224x224"')
        shapes.style("width: 100%; max-width: 420px")
        problem = ui.column().style("width: 100%")

        async def build() -> None:
            problem.clear()
            try:
                specs = parse_shapes(str(shapes.value or "")) or []
                made = await model.with_shapes(specs)
            except Exception as error:
                with problem:
                    error_panel(failure_of(error))
            else:
                ui.navigate.to(f"/models/{made.id}")

        ui.button("Build it", on_click=build).props("unelevated no-caps")
