"""Jobs as the API sees them: submitted, joined, looked up, and shown to whoever may see them."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import anyio.to_thread

from torchpruner_service.api.app_state import AppState
from torchpruner_service.identity import engine_version
from torchpruner_service.state.job_record import JobRecord, State
from torchpruner_service.state.living_workers import living
from torchpruner_service.state.redis_clients import REDIS_ERRORS, unavailable
from torchpruner_service.state.worker_kind import may_differ

NO_WORKER = (
    "no worker is running, so nothing will happen until one starts: run `torchpruner-service "
    "worker` "
    "with the same REDIS_URL and STORAGE_URL"
)


OTHER_WORKERS = (
    "no worker of this service's version ({own}) is running, only of {others}, so nothing will happen "
    "until one starts: bring workers and API processes to one version"
)


async def submit(
    state: AppState, record: JobRecord, restart: tuple[State, ...] = ("cancelled",)
) -> bool:
    """Queue a job; a cancelled one, or one that failed for no fault of the model, starts afresh.

    Where it is being worked on already, its tenant and webhooks wait for it too.
    """

    record.watchers = _owned(record)

    def put() -> bool:
        known = state.board.get(record.id)
        again = restart
        if known is not None and may_be_tried_again(state, known):
            again = ("failed",)
        if state.board.submit(record, again):
            return True
        if not state.board.join(record) and record.watchers:
            ended = state.board.get(record.id)
            if ended is not None and ended.ended:
                # It ended before this caller came: what it came to, and not when, is told.
                now = replace(ended, watchers=record.watchers, ended_at=time.time())
                state.board.tell(now)
        return False

    try:
        return await anyio.to_thread.run_sync(put)
    except REDIS_ERRORS as error:
        raise unavailable(error) from error


def _owned(record: JobRecord) -> list[dict[str, str]]:
    return [{**each, "tenant": record.tenant} for each in record.watchers]


async def tell_ready(state: AppState, record: JobRecord) -> None:
    """Call the webhooks of a job that there is no need for: what it would make is there."""
    if not record.watchers:
        return
    ended = replace(record, state="ready", ended_at=time.time(), watchers=_owned(record))
    try:
        await anyio.to_thread.run_sync(state.board.tell, ended)
    except REDIS_ERRORS as error:
        raise unavailable(error) from error


def may_be_tried_again(state: AppState, record: JobRecord) -> bool:
    """Whether a failed job need not fail again: the model was not at fault, or only the limits of
    other workers than those that live now were. Blocking."""
    problem = record.problem or {}
    if record.state != "failed":
        return False
    return bool(problem.get("retryable")) or any(
        may_differ(problem, facts["kind"])
        for facts in living(state.board.connection, state.keys)
        if facts["engine"] == engine_version() and "kind" in facts
    )


async def find_job(state: AppState, job: str) -> JobRecord | None:
    """Return a job as Redis knows it. Raises ``Unavailable`` where Redis is away."""
    try:
        return JobRecord.from_hash(await state.redis.hgetall(state.keys.job(job)))
    except REDIS_ERRORS as error:
        raise unavailable(error) from error


async def living_workers(state: AppState) -> list[dict[str, Any]]:
    """What each living worker said of itself within the last seconds."""
    try:
        names = [name.decode() for name in await state.redis.smembers(state.keys.workers)]
        if not names:
            return []
        found = await state.redis.mget([state.keys.worker(name) for name in names])
        gone = [name for name, facts in zip(names, found, strict=True) if facts is None]
        if gone:
            await state.redis.srem(state.keys.workers, *gone)
        return [json.loads(facts) for facts in found if facts is not None]
    except REDIS_ERRORS as error:
        raise unavailable(error) from error


def seen_by(record: JobRecord, tenant: str, since: float) -> JobRecord:
    """A job as ``tenant``, who has its model since ``since``, may see it.

    A build is shared, and what others did with it must not show: times before the tenant came are
    the tenant's own, and one that the tenant cancelled is cancelled whoever else waits for it.
    """

    def clipped(moment: float | None) -> float | None:
        return None if moment is None else max(moment, since)

    shown = replace(
        record,
        queued_at=max(record.queued_at, since),
        started_at=clipped(record.started_at),
        ended_at=clipped(record.ended_at),
    )
    if not record.ended and tenant in record.left:
        shown = replace(shown, state="cancelled", stage="cancelled", ended_at=time.time())
    return shown


async def waiting_message(state: AppState, job_state: str) -> str | None:
    """What to tell someone who waits for a job that nobody can run."""
    if job_state not in {"queued", "running"}:
        return None
    workers = await living_workers(state)
    if any(facts["engine"] == engine_version() for facts in workers):
        return None
    if workers:
        others = ", ".join(sorted({str(facts["engine"]) for facts in workers}))
        return OTHER_WORKERS.format(own=engine_version(), others=others)
    return NO_WORKER
