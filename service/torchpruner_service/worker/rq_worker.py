"""The RQ worker process: takes jobs, forks a work-horse for each, survives what happens to them.

It imports neither torch nor onnx: those are in the sandbox's nursery.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any

from rq import Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from torchpruner_service.identity import engine_version
from torchpruner_service.observability.logs import configure_logs
from torchpruner_service.observability.tracing import configure_tracing
from torchpruner_service.parent import end_with
from torchpruner_service.settings import Settings
from torchpruner_service.state.fair_queue import FairQueue, line_of
from torchpruner_service.state.job_board import JobBoard
from torchpruner_service.state.redis_clients import REDIS_ERRORS, blocking_client
from torchpruner_service.storage.objects import Objects
from torchpruner_service.worker.horse import WORKER_PID, Lease

# Imported so that a work-horse, which is forked from here, need not.
from torchpruner_service.worker.horse import run_job as run_job
from torchpruner_service.worker.turn_limit import TurnLimit

CLAIM = 5.0
"""Seconds, beside a lease's, that a job taken from the queue counts as running before it runs."""

log = logging.getLogger(__name__)


class PrunerWorker(Worker):
    """RQ's worker, which takes jobs in turns of tenants and frees what a killed work-horse held."""

    queue_class = FairQueue
    board: JobBoard

    def procline(self, message: str) -> None:
        """Keep the command line: where ``setproctitle`` happens to be installed, RQ would replace it,
        and with it the name that people and tests find the process by."""

    def handle_work_horse_killed(self, job: Job, retpid: Any, ret_val: Any, rusage: Any) -> None:
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)  # type: ignore[no-untyped-call]
        identifier = str(job.args[0])
        try:
            holder = self.board.lease_holder(identifier)
            if holder == f"{self.name}:{retpid}":
                self.board.drop_lease(identifier, holder)
            record = self.board.get(identifier)
            if record is not None:
                self.board.end_turn(record, job.id)
        except REDIS_ERRORS:
            # The lease lapses by itself.
            log.warning("could not free the lease of a killed work-horse")


def main() -> None:
    """``python -m torchpruner_service.worker.rq_worker NAME SUPERVISOR``: work until told to stop, or
    the process of the number ``SUPERVISOR`` is gone."""
    name, supervisor = sys.argv[1], int(sys.argv[2])
    end_with(supervisor, signal.SIGTERM)
    os.environ[WORKER_PID] = str(os.getpid())
    settings = Settings()
    configure_logs(settings)
    configure_tracing(settings, "torchpruner-worker")
    connection = blocking_client(settings.effective_redis_url)
    board = JobBoard(connection, Objects(settings.effective_storage_url), settings)
    queues = [
        board.queue(name).for_worker(
            board.turns,
            line_of(name, engine_version()),
            TurnLimit(board, name),
            settings.lease_seconds + CLAIM,
        )
        for name in settings.queues
    ]
    worker = PrunerWorker(
        queues,
        name=name,
        connection=connection,
        serializer=JSONSerializer,
        worker_ttl=60,
        job_monitoring_interval=5,
    )
    worker.board = board
    worker.work(logging_level="WARNING")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)

__all__ = ["Lease", "PrunerWorker", "main", "run_job"]
