"""What a tenant writes about a model: its name, a note, tags. Changed together, or not at all."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.audit_trail import note
from torchpruner_service.api.catalog import Entry, unknown_model
from torchpruner_service.api.models_service import manifest_of, remove, view
from torchpruner_service.api.path_ids import is_model_id
from torchpruner_service.api.schemas import Description
from torchpruner_service.problems import Problem, problem_of
from torchpruner_service.state.redis_clients import REDIS_ERRORS, unavailable


class Changed(Problem):
    """``If-Match`` names a description that is no longer the model's."""

    status = 412
    slug = "changed-meanwhile"
    title = "The resource was changed by somebody else"


async def change(
    state: AppState, tenant: str, model: str, body: Description, if_match: str | None
) -> dict[str, Any]:
    """Change what the body gives, whatever others change at the same time; return the model's view.

    Raises ``Changed`` where ``if_match`` is given and the description is another by now.
    """
    await manifest_of(state, tenant, model)
    changes = body.model_dump(exclude_unset=True)
    if "tags" in changes:
        changes["tags"] = list(dict.fromkeys(changes["tags"]))
    async with state.catalog.changing(tenant, model):
        entry = await state.catalog.stored_entry(tenant, model)
        if entry is None:
            raise unknown_model(model)
        wanted = [tag.strip().strip('"') for tag in (if_match or "*").split(",")]
        if "*" not in wanted and entry.revision not in wanted:
            raise Changed(
                "the model's name, note or tags were changed since you read them; GET the model, and "
                "send the change again with the ETag it has now",
                model=model,
                revision=entry.revision,
            )
        await state.catalog.describe_held(tenant, model, changes)
    note(changed=sorted(changes))
    return await view(state, tenant, model)


def matching(entries: Sequence[Entry], name: str | None, tags: Sequence[str]) -> list[Entry]:
    """The entries whose name holds ``name``, in either case, and that have all ``tags``."""
    part = (name or "").casefold()
    wanted = {unicodedata.normalize("NFC", tag.strip()) for tag in tags}
    return [
        entry
        for entry in entries
        if part in (entry.name or "").casefold() and wanted <= set(entry.tags)
    ]


async def remove_many(state: AppState, tenant: str, models: Sequence[str]) -> list[dict[str, Any]]:
    """Remove each model; one that cannot be removed keeps no other. An id twice counts once."""
    results: dict[str, dict[str, Any]] = {}
    for model in dict.fromkeys(models):
        try:
            if not is_model_id(model):
                raise unknown_model(ascii(model))
            await remove(state, tenant, model)
        except REDIS_ERRORS as error:
            results[model] = _kept(model, unavailable(error))
        except Problem as problem:
            results[model] = _kept(model, problem)
        else:
            results[model] = {"id": model, "removed": True, "problem": None}
    return list(results.values())


def _kept(model: str, problem: Problem) -> dict[str, Any]:
    return {"id": model, "removed": False, "problem": problem_of(problem)}
