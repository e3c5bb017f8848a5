"""Watching a job change, for long polls and server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.jobs_service import find_job
from torchpruner_service.api.jobs_view import job_view
from torchpruner_service.problems import Unavailable

FAST, SLOW = 0.05, 0.5
REPEAT = 2.0
"""Seconds after which an unchanged job is told again, so that a follower knows that it is waited
for."""


async def follow(state: AppState, job: str, tenant: str) -> AsyncIterator[dict[str, Any]]:
    """Yield a job as ``tenant`` sees it each time it changes, and last when it has ended.

    Redis is asked often while things move and seldom while they do not; its absence is waited out.
    """
    seen: dict[str, Any] | None = None
    pause, missing, told = FAST, 0, 0.0
    while True:
        try:
            record = await find_job(state, job)
        except Unavailable:
            await asyncio.sleep(SLOW)
            continue
        if record is None:
            missing += 1
            if missing > 20:
                return
        else:
            shown = await job_view(state, record, tenant)
            if shown != seen or time.monotonic() - told > REPEAT:
                pause = FAST if shown != seen else pause
                seen, told = shown, time.monotonic()
                yield shown
            if shown["ended_at"] is not None:
                return
        await asyncio.sleep(pause)
        pause = min(SLOW, pause * 1.3)


async def wait_for(state: AppState, job: str, seconds: float) -> None:
    """Return when a job has ended, or after ``seconds``."""
    deadline = time.monotonic() + seconds
    pause = FAST
    while time.monotonic() < deadline:
        record = await find_job(state, job)
        if record is None or record.ended:
            return
        await asyncio.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(SLOW, pause * 1.2)
