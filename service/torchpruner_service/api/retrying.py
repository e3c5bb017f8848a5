"""Jobs that are started again."""

from __future__ import annotations

import time

import anyio.to_thread

from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.jobs_service import find_job, may_be_tried_again, seen_by, submit
from torchpruner_service.problems import Conflict
from torchpruner_service.state.job_record import JobRecord
from torchpruner_service.state.redis_clients import REDIS_ERRORS, unavailable


async def retried(state: AppState, tenant: str, record: JobRecord) -> JobRecord:
    """Start ``tenant``'s job again and return it. Raises a ``Conflict`` where that would not help."""
    seen = seen_by(record, tenant, 0.0)
    retryable = seen.state == "cancelled"
    try:
        retryable |= seen.state == "failed" and await anyio.to_thread.run_sync(
            may_be_tried_again, state, record
        )
    except REDIS_ERRORS as error:
        raise unavailable(error) from error
    if not retryable:
        why = (seen.problem or {}).get("detail", "")
        raise Conflict(
            f"the job is {seen.state} and cannot be started again{': ' if why else ''}{why}",
            slug="job-not-retryable",
            job=record.id,
            state=seen.state,
        )
    request = {
        **record.to_request(),
        "attempt": 1,
        "queued_at": time.time(),
        "engine": "",
        "tenant": tenant,
        "tenants": [tenant],
        "watchers": [each for each in record.watchers if each.get("tenant") == tenant],
    }
    again = JobRecord.from_request(request)
    await submit(state, again, ("cancelled", "failed"))
    return await find_job(state, record.id) or again
