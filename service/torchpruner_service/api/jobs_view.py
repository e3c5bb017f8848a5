"""A job as the API shows it: without its request, its webhooks and whoever else waits for it."""

from __future__ import annotations

from typing import Any

from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.jobs_service import seen_by, waiting_message
from torchpruner_service.problems import Unavailable
from torchpruner_service.state.job_record import JobRecord

SHOWN = (
    "id", "kind", "model", "state", "stage", "percent", "attempt", "queued_at", "started_at",
    "ended_at", "problem", "result",
)  # fmt: skip


async def job_view(state: AppState, record: JobRecord, tenant: str) -> dict[str, Any]:
    """Return ``record`` as a ``JobView`` for ``tenant``, who may see it."""
    entry = await state.catalog.entry(tenant, record.model)
    record = seen_by(record, tenant, entry.added_at if entry else 0.0)
    try:
        message = await waiting_message(state, record.state)
    except Unavailable:
        message = None
    return {**{name: getattr(record, name) for name in SHOWN}, "message": message}
