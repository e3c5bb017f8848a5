"""Jobs with their reasons, to cancel or to start again."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nicegui import events, ui

from torchpruner_client import Job
from torchpruner_dashboard import formatting, palette
from torchpruner_dashboard.components.data_table import Column, DataTable, search_field
from torchpruner_dashboard.components.model_rows import display_name
from torchpruner_dashboard.components.notices import toast, toast_failure
from torchpruner_dashboard.sessions import Session

KINDS = {
    "build": "Build a graph",
    "weights": "Cut weights",
    "onnx": "Cut an ONNX model",
    "attach": "Add weights",
    "latency": "Measure latency",
    "plan": "Plan",
}

COLUMNS = (
    Column("kind", "Job", "name"),
    Column("state", "State", "state", signs=palette.STATES),
    Column("reason", "Reason", "line"),
    Column("queued_at", "Queued", "number"),
    Column("took", "Took", "number"),
    Column("action", "", "action"),
)

FILTERS = {"all": "All", "active": "Running", "failed": "Failed"}


class JobTable:
    """``on_change`` is awaited when a job was cancelled or started again."""

    def __init__(self, session: Session, on_change: Callable[[], Awaitable[None]]) -> None:
        self._session = session
        self._on_change = on_change
        self._jobs: Sequence[Job] = ()
        with ui.element("section").classes("tp-stack").props('aria-label="Jobs"'):
            with ui.row().classes("tp-row"):
                ui.label("Your jobs").classes("tp-h2")
                self._filter = ui.toggle(FILTERS, value="all", on_change=self._draw)
                self._filter.props("no-caps dense unelevated")
                ui.element("div").classes("tp-grow")
                box = ui.row()
            self._table = DataTable(COLUMNS, [], page_size=10, empty="No jobs yet: upload a model")
            self._table.table.on("action", self._act)
            with box:
                search_field(self._table, "Search jobs")

    def show(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._draw()

    def _draw(self) -> None:
        wanted = {
            "all": {"queued", "running", "ready", "failed", "cancelled"},
            "active": {"queued", "running"},
            "failed": {"failed"},
        }[str(self._filter.value)]
        may_write = self._session.may("write")
        names = {key: display_name(info) for key, info in self._session.models.items()}
        rows = [job_row(job, may_write, names) for job in self._jobs if job.state in wanted]
        self._table.set_rows(rows)

    async def _act(self, event: events.GenericEventArguments) -> None:
        job, action = str(event.args[0]), str(event.args[1])
        try:
            if action == "cancel":
                await self._session.client.cancel_job(job)
                toast("The job is cancelled", "info")
            else:
                await self._session.client.retry_job(job)
                toast("The job starts again", "info")
        except Exception as error:
            toast_failure(error)
        await self._on_change()


def job_row(job: Job, may_write: bool, names: Mapping[str, str]) -> dict[str, Any]:
    """One row; its action is what helps now, if anything does. ``names`` are models' by id."""
    active = job.state in {"queued", "running"}
    problem = job.problem or {}
    took = (job.ended_at or time.time()) - job.started_at if job.started_at else None
    action = "cancel" if active else "retry" if job.retryable else ""
    return {
        "id": job.id,
        "kind": KINDS.get(job.kind, job.kind),
        "kind_sub": names.get(job.model, job.model),
        "kind_href": f"/models/{job.model}",
        "state": job.state,
        "state_percent": job.percent if job.state == "running" else None,
        "state_sub": job.stage if job.state == "running" else None,
        "reason": str(problem.get("title") or job.message or ""),
        "reason_sub": str(problem.get("detail") or "") or None,
        "queued_at": job.queued_at,
        "queued_at_text": formatting.age(job.queued_at),
        "took": took,
        "took_text": formatting.duration(took),
        "action": action,
        "action_text": {"cancel": "Cancel", "retry": "Try again"}.get(action)
        if may_write
        else None,
    }
