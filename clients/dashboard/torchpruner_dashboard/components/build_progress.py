"""A model without a graph: how far it is, or why it will never have one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from torchpruner_client import (
    AsyncRemoteModel,
    NotFoundError,
    ServiceError,
    ServiceUnreachable,
    UnauthorizedError,
)
from torchpruner_dashboard.components.notices import error_panel
from torchpruner_dashboard.failures import Failure, problem_failure

POLL = 0.5


def build_progress(model: AsyncRemoteModel, when_ready: Callable[[], Awaitable[None]]) -> None:
    """Show the state of the build and follow it; ``when_ready`` is awaited at its end, which may be
    that the model is gone."""
    if model.info.state == "failed":
        error_panel(problem_failure(model.info.problem))
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

    async def look() -> None:
        try:
            info = await model.refresh()
        except (NotFoundError, UnauthorizedError):
            timer.cancel()
            await when_ready()
            return
        except (ServiceError, ServiceUnreachable):
            stage.text = "The service does not answer at the moment"
            return
        bar.value = info.percent / 100
        stage.text = info.message or info.stage
        if info.state not in {"queued", "running"}:
            timer.cancel()
            await when_ready()

    timer = ui.timer(POLL, look)
