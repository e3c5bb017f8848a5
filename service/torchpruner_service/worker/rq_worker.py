"""The RQ worker process: takes jobs, forks a work-horse for each, survives what happens to them.

It imports neither torch nor onnx: those are in the sandbox's nursery.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from typing import Any

from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from torchpruner_service.observability.logs import configure_logs
from torchpruner_service.observability.tracing import configure_tracing
from torchpruner_service.settings import Settings
from torchpruner_service.state.job_board import JobBoard
from torchpruner_service.state.redis_clients import REDIS_ERRORS, blocking_client
from torchpruner_service.storage.objects import Objects
from torchpruner_service.worker.horse import Lease

# Imported so that a work-horse, which is forked from here, need not.
from torchpruner_service.worker.horse import run_job as run_job

log = logging.getLogger(__name__)


class PrunerWorker(Worker):
    """RQ's worker, which also frees the lease of a work-horse that was killed."""

    board: JobBoard

    def handle_work_horse_killed(self, job: Job, retpid: Any, ret_val: Any, rusage: Any) -> None:
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)  # type: ignore[no-untyped-call]
        identifier = str(job.args[0])
        try:
            holder = self.board.lease_holder(identifier)
            if holder == f"{self.name}:{retpid}":
                self.board.drop_lease(identifier, holder)
        except REDIS_ERRORS:
            # The lease lapses by itself.
            log.warning("could not free the lease of a killed work-horse")


def main() -> None:
    """``python -m torchpruner_service.worker.rq_worker NAME``: work until told to stop."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
    name = sys.argv[1]
    settings = Settings()
    configure_logs(settings)
    configure_tracing(settings, "torchpruner-worker")
    connection = blocking_client(settings.effective_redis_url)
    board = JobBoard(connection, Objects(settings.effective_storage_url), settings)
    queues = [
        Queue(board.keys.queue(queue), connection=connection, serializer=JSONSerializer)
        for queue in settings.queues
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
