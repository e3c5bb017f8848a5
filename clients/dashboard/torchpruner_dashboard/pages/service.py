"""The service: what it waits for, who works, what failed, how quick it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from nicegui import ui

from torchpruner_client import (
    ForbiddenError,
    Job,
    NotFoundError,
    Readiness,
    UnauthorizedError,
    Worker,
)
from torchpruner_dashboard.components.frame import frame
from torchpruner_dashboard.components.job_table import JobTable
from torchpruner_dashboard.components.notices import (
    Early,
    Region,
    ask_for_key,
    error_panel,
    promptly,
)
from torchpruner_dashboard.components.service_figures import ServiceFigures
from torchpruner_dashboard.components.service_load import ServiceLoad
from torchpruner_dashboard.failures import failure_of
from torchpruner_dashboard.service_history import ServiceHistory
from torchpruner_dashboard.visit import Desk, Visit

POLL = 2.0


@dataclass(frozen=True)
class Reading:
    """One look at the service."""

    readiness: Readiness
    workers: list[Worker]
    jobs: list[Job]
    metrics: str


def install(desk: Desk) -> None:
    @ui.page("/service")
    async def page() -> None:
        visit = desk.visit()
        service = ServicePage(visit)
        early = await promptly(service.read)
        with frame(visit, "Service", "Service"):
            service.build(early)


class ServicePage:
    """Looks every two seconds while it is open."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._history = ServiceHistory()
        self._nameless: set[str] = set()
        self._figures: ServiceFigures | None = None
        self._jobs: JobTable | None = None
        self._load: ServiceLoad | None = None
        self._region = Region(self.read, self._show, "Asking the service")

    def build(self, early: Early[Reading]) -> None:
        ui.html('<h1 class="tp-title">Service</h1>', sanitize=False)
        self._trouble = ui.column().classes("tp-stack")
        self._region.build(early)
        ui.timer(POLL, self._again)

    async def read(self) -> Reading:
        session = self._visit.session
        await session.check()
        client = session.client
        readiness, workers, jobs, metrics = await asyncio.gather(
            client.readiness(), client.workers(), client.jobs(), self._metrics()
        )
        await self._learn_names(jobs)
        return Reading(readiness, workers, jobs, metrics)

    async def _learn_names(self, jobs: list[Job]) -> None:
        """Jobs are shown with their models' names; those of removed models have none to be found."""
        session = self._visit.session
        unknown = {job.model for job in jobs} - session.models.keys() - self._nameless
        if unknown:
            session.models |= {info.id: info for info in await session.client.models()}
            self._nameless |= unknown - session.models.keys()

    async def _metrics(self) -> str:
        """The figures of all tenants together, which a key of one need not be allowed to see."""
        try:
            return await self._visit.session.client.metrics()
        except (ForbiddenError, NotFoundError):
            return ""

    def _show(self, reading: Reading) -> None:
        self._figures = ServiceFigures(self._visit.session)
        self._jobs = JobTable(self._visit.session, self._again)
        self._load = ServiceLoad()
        self._put(reading)

    def _put(self, reading: Reading) -> None:
        self._history.add(reading.metrics)
        if self._figures is not None and self._jobs is not None and self._load is not None:
            self._figures.show(reading.readiness, reading.workers, reading.jobs, self._history)
            self._jobs.show(reading.jobs)
            self._load.show(self._history)

    async def _again(self) -> None:
        if self._figures is None:
            return
        try:
            reading = await self.read()
        except UnauthorizedError:
            ask_for_key()
            return
        except Exception as error:
            self._trouble.clear()
            with self._trouble:
                error_panel(failure_of(error))
            return
        self._trouble.clear()
        self._put(reading)
