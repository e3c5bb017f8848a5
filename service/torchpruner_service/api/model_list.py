"""Views of many models with a handful of round trips to Redis, whatever their number."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from torchpruner_service.api import jobs_service, models_service
from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.catalog import Entry
from torchpruner_service.problems import NotFound
from torchpruner_service.state.job_record import JobRecord
from torchpruner_service.state.redis_clients import REDIS_ERRORS
from torchpruner_service.storage import layout

AT_ONCE = 32
"""Questions to the object store at the same time."""


async def list_views(
    state: AppState, tenant: str, entries: Sequence[Entry]
) -> list[dict[str, Any]]:
    """Return the view of every entry that still exists, in the same order.

    What Redis does not know is asked for one by one, as a single model is.
    """
    known = await cached_manifests(state, [entry.model for entry in entries])
    records, facts = await _states(state, known)
    roots = {
        models_service.root_of(manifest)
        for model, manifest in known.items()
        if _facts(records.get(model), facts.get(model)).get(
            "weightless", manifest.get("weightless")
        )
    }
    attached = await _with_weights(state, tenant, sorted(roots))
    message = await _waiting_message(state, records)
    views = []
    for entry in entries:
        manifest = known.get(entry.model)
        record, counted = records.get(entry.model), facts.get(entry.model)
        if manifest is None or (record is None and counted is None):
            views.append(await _one(state, tenant, entry.model))
            continue
        fields = dict(models_service.READY)
        if record is not None:
            seen = jobs_service.seen_by(record, tenant, entry.added_at)
            fields = models_service.state_fields(seen)
        found = _facts(record, counted)
        waits = record is not None and not record.ended
        views.append(
            models_service.assemble(
                manifest,
                found,
                fields,
                tenant,
                entry,
                models_service.root_of(manifest) in attached,
                message if waits else None,
            )
        )
    return [view for view in views if view is not None]


async def cached_manifests(state: AppState, models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The manifests that Redis has; the caller asks the store for others."""
    if not models:
        return {}
    try:
        found = await state.redis.mget([state.keys.manifest(model) for model in models])
    except REDIS_ERRORS:
        return {}
    return {
        model: json.loads(data)
        for model, data in zip(models, found, strict=True)
        if data is not None
    }


async def _states(
    state: AppState, manifests: dict[str, dict[str, Any]]
) -> tuple[dict[str, JobRecord], dict[str, dict[str, Any]]]:
    """Build jobs of uploaded models, and facts of all, as far as Redis has them."""
    if not manifests:
        return {}, {}
    uploaded = [model for model, manifest in manifests.items() if not manifest.get("parent")]
    try:
        pipe = state.redis.pipeline(transaction=False)
        for model in uploaded:
            pipe.hgetall(state.keys.job(models_service.build_job(model)))
        pipe.mget([state.keys.facts(model) for model in manifests])
        *jobs, facts = await pipe.execute()
    except REDIS_ERRORS:
        return {}, {}
    records = {
        model: record
        for model, data in zip(uploaded, jobs, strict=True)
        if (record := JobRecord.from_hash(data)) is not None
    }
    counted = {
        model: json.loads(data)
        for model, data in zip(manifests, facts, strict=True)
        if data is not None
    }
    return records, counted


async def _with_weights(state: AppState, tenant: str, roots: Sequence[str]) -> set[str]:
    limit = asyncio.Semaphore(AT_ONCE)

    async def look(root: str) -> bool:
        async with limit:
            return await state.objects.aexists(layout.holding(tenant, root, layout.WEIGHTS))

    found = await asyncio.gather(*(look(root) for root in roots))
    return {root for root, there in zip(roots, found, strict=True) if there}


async def _waiting_message(state: AppState, records: dict[str, JobRecord]) -> str | None:
    waits = next((record for record in records.values() if not record.ended), None)
    return None if waits is None else await jobs_service.waiting_message(state, waits.state)


def _facts(record: JobRecord | None, counted: dict[str, Any] | None) -> dict[str, Any]:
    return (record.result if record else counted) or {}


async def _one(state: AppState, tenant: str, model: str) -> dict[str, Any] | None:
    try:
        return await models_service.view(state, tenant, model)
    except NotFound:
        return None
