"""Latency: measured, each time anew since the answer depends on the moment, and found again."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.artifacts_service import source_request
from torchpruner_service.api.cut_results import cut_summary
from torchpruner_service.api.jobs_service import find_job, submit
from torchpruner_service.api.schemas import Latency
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.identity import short
from torchpruner_service.observability.logs import current_request_id
from torchpruner_service.observability.tracing import current_trace
from torchpruner_service.state.job_record import JobRecord
from torchpruner_service.storage import layout

AT_ONCE = 32
"""Questions to the object store at the same time."""


async def request_latency(
    state: AppState,
    who: Principal,
    model: str,
    body: Latency,
    watchers: list[dict[str, str]],
    plan: str | None = None,
) -> JobRecord:
    """Queue a measurement of ``model`` and of what the body's result leaves of it; return the job.

    ``plan`` is the id of the plan that the result is of.
    """
    request, result = await source_request(state, who.tenant, model, body.result)
    cut = None if result is None else cut_summary(model, result)
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
            "cut": cut,
            "plan": plan,
        },
        request_id=current_request_id(),
        trace=current_trace(),
        watchers=watchers,
    )
    await submit(state, record)
    return await find_job(state, record.id) or record


async def latency_items(state: AppState, tenant: str, model: str) -> list[str]:
    """What was measured of a tenant's model, newest first, without reading any."""
    return (await state.catalog.held_items(tenant, model, layout.LATENCIES))[::-1]


async def latency_views(
    state: AppState, tenant: str, model: str, items: Sequence[str]
) -> list[dict[str, Any]]:
    """The measurements of ``items`` as ``GET .../latencies`` shows them; what is gone is left out."""

    limit = asyncio.Semaphore(AT_ONCE)

    async def one(item: str) -> dict[str, Any] | None:
        async with limit:
            facts = await state.catalog.held(tenant, model, layout.LATENCIES, item)
        return None if facts is None else {"id": facts["job"], "model": model, **facts}

    found = await asyncio.gather(*(one(item) for item in items))
    return [each for each in found if each is not None]
