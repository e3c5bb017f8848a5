"""Finds jobs that nobody is working on and starts them again.

Every API process and worker runs one of these; a short-lived key lets one of them act at a time.
What it handles: a worker or work-horse that was killed, an RQ entry that was lost between two
processes, and a Redis that came back empty.
"""

from __future__ import annotations

import logging
import time

from torchpruner_service.identity import engine_version, newer
from torchpruner_service.problems import Problem
from torchpruner_service.state.job_board import JobBoard
from torchpruner_service.state.job_record import JobRecord
from torchpruner_service.state.living_workers import living

INTERVAL = 2.0
RESTORE_SECONDS = 30
"""How often pending jobs are compared with Redis, which may have lost its last second, or all."""

ADOPT_SECONDS = 30.0
"""How long an older version must be without workers before its jobs are taken over."""

log = logging.getLogger(__name__)


class Reconciler:
    """Call :meth:`step` every :data:`INTERVAL` seconds."""

    def __init__(self, board: JobBoard) -> None:
        self._board = board
        self._suspects: dict[str, tuple[int, float]] = {}
        self._alone_since: dict[str, float] = {}

    def step(self) -> int:
        """Look once; return how many jobs were started again."""
        board = self._board
        claimed = board.connection.set(board.keys.reconciling, "1", nx=True, px=int(INTERVAL * 900))
        if not claimed:
            return 0
        moved = self._restore()
        active = board.active()
        self._suspects = {job: seen for job, seen in self._suspects.items() if job in active}
        return moved + sum(self._look_at(job) for job in active)

    def _restore(self) -> int:
        board = self._board
        if board.connection.get(board.keys.restored):
            return 0
        moved = 0
        for key in board.objects.keys("pending/"):
            request = board.objects.get_json(key)
            if request is None:
                continue
            moved += board.restore(JobRecord.from_request(request))
        board.connection.set(board.keys.restored, "1", ex=RESTORE_SECONDS)
        if moved:
            log.warning("jobs restored from the object store", extra={"jobs": moved})
        return moved

    def _look_at(self, job: str) -> bool:
        board = self._board
        record = board.get(job)
        if record is None or record.ended:
            board.forget_active(job)
            return False
        if board.lease_holder(job) is not None:
            self._suspects.pop(job, None)
            return False
        if record.state == "queued" and board.waits_in_queue(record):
            self._suspects.pop(job, None)
            return self._adopt(record)
        # Between "taken from the queue" and "lease taken" nobody holds the job for a moment.
        attempt, since = self._suspects.get(job, (0, 0.0))
        if attempt != record.attempt:
            self._suspects[job] = (record.attempt, time.monotonic())
            return False
        patience = 1.0 if record.state == "running" else board.settings.lease_seconds
        if time.monotonic() - since < patience:
            return False
        self._suspects.pop(job, None)
        return self._start_again(record)

    def _adopt(self, record: JobRecord) -> bool:
        """Take over a job of an older engine none of whose workers is left.

        One of a newer engine waits for it: what this one made would stay under the newer one's ids.
        """
        own = engine_version()
        if record.engine == own or newer(record.engine, own):
            return False
        board = self._board
        if any(facts["engine"] == record.engine for facts in living(board.connection, board.keys)):
            self._alone_since.pop(record.engine, None)
            return False
        since = self._alone_since.setdefault(record.engine, time.monotonic())
        if time.monotonic() - since < ADOPT_SECONDS:
            return False
        log.warning("job of an older version taken over", extra={"job": record.id})
        return board.adopt(record)

    def _start_again(self, record: JobRecord) -> bool:
        if record.state == "running" and record.attempt >= self._board.settings.job_attempts:
            problem = WorkerLost(
                f"the worker was lost {record.attempt} times while it worked on this job; "
                "look at the workers' memory, then submit the job again",
                attempts=record.attempt,
                retryable=True,
            )
            self._board.fail(record, problem.to_dict())
            return False
        log.warning("job started again", extra={"job": record.id, "attempt": record.attempt + 1})
        return self._board.again(record, "queued again: the worker was lost")


class WorkerLost(Problem):
    """Workers died under a job again and again."""

    status = 500
    slug = "worker-lost"
    title = "The worker was lost while it worked on the job"
