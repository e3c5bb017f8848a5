"""Queues a latency measurement. Each is a new job: the answer depends on the moment."""

from __future__ import annotations

import secrets

from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.artifacts_service import source_request
from torchpruner_service.api.jobs_service import find_job, submit
from torchpruner_service.api.schemas import Latency
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.identity import short
from torchpruner_service.observability.logs import current_request_id
from torchpruner_service.observability.tracing import current_trace
from torchpruner_service.state.job_record import JobRecord


async def request_latency(
    state: AppState,
    who: Principal,
    model: str,
    body: Latency,
    watchers: list[dict[str, str]],
) -> JobRecord:
    """Queue a measurement of ``model`` and of what the body's result leaves of it; return the job."""
    request, _ = await source_request(state, who.tenant, model, body.result)
    record = JobRecord(
        id=f"latency-{model}-{short(secrets.token_bytes(20))}",
        kind="latency",
        tenant=who.tenant,
        model=model,
        request={
            **request,
            "runs": body.runs,
            "warm_up": body.warm_up,
            "threads": body.threads,
        },
        request_id=current_request_id(),
        trace=current_trace(),
        watchers=watchers,
    )
    await submit(state, record)
    return await find_job(state, record.id) or record
