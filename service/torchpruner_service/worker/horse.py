"""The entry point of a work-horse: run one attempt of one job, whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import structlog
from redis.exceptions import RedisError

from torchpruner_service.identity import engine_version
from torchpruner_service.observability.tracing import flush_traces, job_span
from torchpruner_service.parent import end_with
from torchpruner_service.problems import Problem, StorageFull, Unavailable, problem_of
from torchpruner_service.sandbox.runner import SandboxGone, TaskCancelled, TaskKilled
from torchpruner_service.settings import Settings
from torchpruner_service.state.job_board import JobBoard, rq_id
from torchpruner_service.state.job_record import JobRecord
from torchpruner_service.state.redis_clients import REDIS_ERRORS, retrying_client, unavailable
from torchpruner_service.state.worker_kind import noted, own_kind
from torchpruner_service.storage import layout
from torchpruner_service.storage.objects import Objects
from torchpruner_service.storage.store_errors import NO_ROOM, full
from torchpruner_service.storage.tree_removal import remove_tree
from torchpruner_service.worker.context import JobContext
from torchpruner_service.worker.handlers import HANDLERS
from torchpruner_service.worker.totals import count_job

NURSERY = "TORCHPRUNER_NURSERY_SOCKET"
WORKER_PID = "TORCHPRUNER_WORKER_PID"

NOT_POISON = frozenset({"blob-damaged", "blob-missing", "internal-error"})
"""Failures that another try may not have."""

log = structlog.get_logger(__name__)


def run_job(job: str, attempt: int) -> None:
    """Run attempt ``attempt`` of ``job``. RQ calls this in a process made for it.

    Errors that the model or the request caused end the job as failed; those of Redis or the object
    store leave it to be tried again.
    """
    # An orphan would work on a job that was given to another.
    end_with(int(os.environ[WORKER_PID]), signal.SIGKILL)
    settings = Settings()
    connection = retrying_client(settings.effective_redis_url)
    board = JobBoard(connection, Objects(settings.effective_storage_url), settings)
    record = board.get(job)
    if record is None or record.ended or record.attempt != attempt:
        return
    if record.engine != engine_version():
        log.warning("a job of another engine's version", job=job, engine=record.engine)
        return
    lease = Lease(board, record, f"{os.environ.get('RQ_WORKER_ID', 'worker')}:{os.getpid()}")
    if not lease.take():
        return
    structlog.contextvars.bind_contextvars(
        job=job, attempt=attempt, kind=record.kind, model=record.model, request_id=record.request_id
    )
    folder: Path | None = None
    try:
        if board.start(record):
            settings.scratch_dir.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="job-", dir=settings.scratch_dir))
            _attempt(board, record, settings, folder, lease)
    except OSError as error:
        _again(board, record, error)
    finally:
        lease.release()
        if folder is not None:
            remove_tree(folder)
        flush_traces()


def _attempt(
    board: JobBoard, record: JobRecord, settings: Settings, folder: Path, lease: Lease
) -> None:
    context = JobContext(
        record=record,
        board=board,
        objects=board.objects,
        settings=settings,
        folder=folder,
        nursery=Path(os.environ[NURSERY]),
        stop=lease.lost.is_set,
    )
    started = time.monotonic()
    log.info("job started")
    try:
        with job_span(record):
            result = HANDLERS[record.kind](context)
        context.finish_stage()
        board.ready(record, result)
    except TaskCancelled:
        log.info("job stopped")
    except (Unavailable, StorageFull, SandboxGone, *REDIS_ERRORS) as error:
        _again(board, record, error)
    except TaskKilled as error:
        if record.attempt < settings.job_attempts:
            _again(board, record, error, "queued again: its process was killed")
        else:
            _failed(board, record, error)
    except Exception as error:
        _failed(board, record, error)
    seconds = time.monotonic() - started
    count_job(board, record, seconds, context.stages)
    log.info("job ended", state=record.state, seconds=round(seconds, 3), stages=context.stages)


def _failed(board: JobBoard, record: JobRecord, error: Exception) -> None:
    problem = problem_of(error)
    if isinstance(error, Problem):
        log.info("job failed", problem=problem)
    else:
        log.exception("job failed")
        problem["request_id"] = record.request_id
    problem = noted(problem, own_kind(board.settings))
    if record.kind == "build" and problem["status"] < 500 and problem["type"] not in NOT_POISON:
        # Poison: whoever uploads the same bytes again gets the same answer, without a worker, as
        # long as there is none of another kind where that kind was at fault.
        board.objects.put_json(layout.failure(record.model), problem)
    board.fail(record, problem)


def _again(
    board: JobBoard,
    record: JobRecord,
    error: Exception,
    stage: str = "queued again: a part of the service was away",
) -> None:
    log.warning("job interrupted", error=f"{type(error).__name__}: {error}")
    if record.attempt >= board.settings.job_attempts:
        board.fail(record, {**problem_of(_named(board, error)), "retryable": True})
        return
    time.sleep(min(2.0, 0.5 * record.attempt))
    board.again(record, stage)


def _named(board: JobBoard, error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return full(board.settings.scratch_dir, "the worker's scratch folder", error.errno)
    if isinstance(error, RedisError):
        return unavailable(error)
    return Unavailable(f"the job was interrupted: {error}")


class Lease:
    """The right to work on a job, renewed by a thread; ``lost`` is set when it is gone.

    It is gone when the job was cancelled, or another attempt was started because this process could
    not renew for too long.
    """

    def __init__(self, board: JobBoard, record: JobRecord, holder: str) -> None:
        self.lost = threading.Event()
        self._released = threading.Event()
        self._board = board
        self._record = record
        self._holder = holder
        # The record's attempt counts up where the job is queued again before the lease is released.
        self._item = rq_id(record)
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def take(self) -> bool:
        if not self._board.take_lease(self._record, self._holder):
            return False
        self._thread.start()
        return True

    def release(self) -> None:
        self._released.set()
        self._thread.join(timeout=2.0)
        with contextlib.suppress(*REDIS_ERRORS):
            self._board.drop_lease(self._record.id, self._holder)
            self._board.end_turn(self._record, self._item)

    def _keep(self) -> None:
        renewed = time.monotonic()
        span = self._board.settings.lease_seconds
        while not self._released.wait(min(0.5, span / 6)):
            try:
                current = self._board.get(self._record.id)
                if current is None:
                    # Redis came back empty: what is being made is still wanted.
                    continue
                if current.ended or current.attempt != self._record.attempt:
                    self.lost.set()
                    return
                if time.monotonic() - renewed > span / 4:
                    if not self._board.take_lease(self._record, self._holder):
                        self.lost.set()
                        return
                    renewed = time.monotonic()
            except REDIS_ERRORS:
                continue
