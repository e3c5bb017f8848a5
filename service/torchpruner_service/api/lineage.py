"""A model's ancestors and the models derived from it."""

from __future__ import annotations

from typing import Any

from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.model_list import cached_manifests
from torchpruner_service.api.models_service import manifest_of
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.problems import NotFound
from torchpruner_service.storage import layout


async def lineage_of(state: AppState, who: Principal, model: str) -> dict[str, Any]:
    """Return the chain from the uploaded model to ``model``, and its children that the tenant has.

    An ancestor that was deleted ends the chain.
    """
    ancestors = []
    current: str | None = model
    while current is not None:
        try:
            manifest = await manifest_of(state, who.tenant, current)
        except NotFound:
            if current == model:
                raise
            break
        ancestors.append(await _entry(state, who, manifest))
        current = manifest.get("parent")
    entries = [entry.model for entry in await state.catalog.models(who.tenant)]
    known = await cached_manifests(state, entries)
    children = []
    for name in entries:
        try:
            manifest = known.get(name) or await manifest_of(state, who.tenant, name)
        except NotFound:
            continue
        if manifest.get("parent") == model:
            children.append(await _entry(state, who, manifest))
    return {"ancestors": ancestors[::-1], "children": children}


async def _entry(state: AppState, who: Principal, manifest: dict[str, Any]) -> dict[str, Any]:
    facts = await state.objects.aget_json(layout.facts(manifest["id"])) or {}
    entry = await state.catalog.entry(who.tenant, manifest["id"])
    return {
        "id": manifest["id"],
        "name": entry.name if entry else None,
        "parent": manifest.get("parent"),
        "created_at": entry.added_at if entry else 0.0,
        "params": facts.get("params"),
        "flops": facts.get("flops"),
    }
