"""Readiness, workers and totals of a service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from torchpruner_client import Job, Readiness, Worker
from torchpruner_dashboard import formatting, palette
from torchpruner_dashboard.components.data_table import Column, DataTable
from torchpruner_dashboard.components.facts import facts
from torchpruner_dashboard.service_history import ServiceHistory
from torchpruner_dashboard.sessions import Session

WORKERS = (
    Column("name", "Worker", "name"),
    Column("device", "Device"),
    Column("queues", "Takes jobs from"),
    Column("runs_code", "TorchScript and .pt2"),
    Column("engine", "Engine"),
)


class ServiceFigures:
    """Built once; every reading changes what is in it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        with ui.element("section").classes("tp-card").props('aria-label="State"'):
            self._state = ui.row().classes("tp-row").style("margin-bottom: 6px")
            self._facts = ui.column().style("width: 100%")
        with ui.element("section").classes("tp-stack").props('aria-label="Workers"'):
            ui.label("Workers").classes("tp-h2")
            self._workers = DataTable(WORKERS, [], empty="No worker is running")

    def show(
        self,
        readiness: Readiness,
        workers: Sequence[Worker],
        jobs: Sequence[Job],
        history: ServiceHistory,
    ) -> None:
        self._show_state(readiness)
        self._show_facts(workers, jobs, history)
        self._workers.set_rows([_worker_row(worker) for worker in workers])

    def _show_state(self, readiness: Readiness) -> None:
        self._state.clear()
        with self._state:
            _light("Redis", readiness.redis)
            _light("Object store", readiness.storage)
            _light(formatting.plural(readiness.workers, "worker"), readiness.workers > 0)
            if readiness.message:
                ui.label(readiness.message).classes("tp-soft tp-wrap")

    def _show_facts(
        self, workers: Sequence[Worker], jobs: Sequence[Job], history: ServiceHistory
    ) -> None:
        running = sum(job.state == "running" for job in jobs)
        failed = sum(job.state == "failed" for job in jobs)
        hit = history.hit_rate
        info = self._session.info
        depth = history.metrics.samples("torchpruner_queue_depth")
        queues = ", ".join(f"{s.labels.get('queue')} {s.value:.0f}" for s in depth)
        devices = ", ".join(sorted({_device(worker) for worker in workers}))
        rate = history.moments[-1].rate if history.moments else 0.0
        self._facts.clear()
        with self._facts:
            facts(
                [
                    ("Jobs waiting", f"{history.waiting:.0f}", queues),
                    ("Your jobs", f"{running} running", f"{failed} failed"),
                    ("Graph cache", f"{hit:.1f} %" if hit is not None else "–", "found in memory"),
                    ("Requests", f"{rate:.1f} a second", f"{history.errors:.0f} errors in all"),
                    ("Devices", devices or formatting.NOTHING, ""),
                    ("Version", info.service if info else formatting.NOTHING, ""),
                    ("You are", info.tenant if info else formatting.NOTHING, "tenant"),
                ]
            )


def _light(name: str, good: bool) -> None:
    sign = palette.STATES["ready" if good else "failed"]
    with ui.element("span").classes("tp-state"):
        ui.icon(sign.icon).style(f"color: {sign.colour}")
        ui.label(f"{name}{'' if good else ': away'}")


def _device(worker: Worker) -> str:
    return "GPU (CUDA)" if worker.device == "cuda" else "CPU"


def _worker_row(worker: Worker) -> dict[str, Any]:
    return {
        "id": worker.name,
        "name": worker.name,
        "device": _device(worker),
        "queues": ", ".join(worker.queues),
        "runs_code": "in a sandbox" if worker.runs_code else "refused: no sandbox here",
        "engine": worker.engine,
    }
