"""Saved cuts: what was asked and what it removes, under a name, of a tenant's model."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import anyio.to_thread

from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import CutResult
from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.cut_results import (
    analysed,
    check_answer,
    cut_summary,
    fitting_result,
    not_the_answer,
)
from torchpruner_service.api.cut_schemas import CutSave
from torchpruner_service.api.models_service import graph_of
from torchpruner_service.api.ownership import OwnedCut, unknown_cut
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.identity import cut_key, saved_cut_id
from torchpruner_service.problems import Conflict, InvalidRequest, RateLimited
from torchpruner_service.storage import layout

MOST_CUTS = 1000
"""Cuts that a tenant may save of one model."""

AT_ONCE = 32
"""Questions to the object store at the same time."""


async def save_cut(
    state: AppState, who: Principal, model: str, body: CutSave
) -> tuple[OwnedCut, bool]:
    """Keep a cut under its name; return it, and whether it is new.

    The same cut under the same name is the one that is there. Raises a ``Conflict`` where the name
    is another cut's or the result does not fit, and ``QuotaExceeded``.
    """
    cached = await graph_of(state, who.tenant, model)
    result = await anyio.to_thread.run_sync(_result, cached.graph, body, model)
    check_answer(result, state.settings.max_answer_bytes)
    request = None if body.request is None else body.request.model_dump(mode="json")
    whole = {"request": request, "result": result.to_dict()}
    size = len(json.dumps(whole, separators=(",", ":")))
    identifier = saved_cut_id(who.tenant, model, body.name)
    facts = {"name": body.name, "note": body.note, "created_at": time.time()}
    facts |= cut_summary(model, result)
    catalog = state.catalog
    async with catalog.changing(who.tenant, model):
        # Asked once more: the model may have been removed while the cut was analysed.
        await catalog.require_model(who.tenant, model)
        known = await catalog.held(who.tenant, model, layout.CUTS, identifier)
        if known is not None and known["fingerprint"] != facts["fingerprint"]:
            raise Conflict(
                f"another cut of this model is called {body.name!r}; choose another name, or delete that "
                "one first",
                slug="name-taken",
                cut=identifier,
            )
        if known is not None:
            return OwnedCut(identifier, model, known), False
        held = await catalog.held_items(who.tenant, model, layout.CUTS)
        if len(held) >= MOST_CUTS:
            raise RateLimited(
                f"there are {len(held)} saved cuts of this model; delete some first",
                slug="too-many-cuts",
                limit=MOST_CUTS,
            )
        await state.quotas.check_bytes(who, size)
        # The result first: a cut that is listed is whole.
        await catalog.hold(who.tenant, model, layout.CUT_RESULTS, whole, identifier)
        await catalog.hold(who.tenant, model, layout.CUTS, facts, identifier)
    return OwnedCut(identifier, model, facts), True


def _result(graph: SolvedGraph, body: CutSave, model: str) -> CutResult:
    """The cut that a body means, as the engine has it."""
    posted = fitting_result(graph, body.result, model)
    if body.request is None:
        if posted is None:
            raise InvalidRequest(
                "a saved cut has a request, or a result that cut-analysis returned"
            )
        return posted
    found = analysed(graph, body.request)
    if posted is not None and cut_key(posted) != cut_key(found):
        raise not_the_answer(model)
    return found


async def saved_cut_view(
    state: AppState, tenant: str, cut: OwnedCut, *, whole: bool = True
) -> dict[str, Any]:
    """Return a saved cut as ``GET /v1/cuts/{cut}`` shows it; ``whole`` with what it removes."""
    shown = {"id": cut.id, "model": cut.model, **cut.facts}
    if not whole:
        return shown
    kept = await state.catalog.held(tenant, cut.model, layout.CUT_RESULTS, cut.id)
    if kept is None:
        raise unknown_cut(cut.id)  # removed this moment
    return {**shown, **kept}


async def cuts_of(state: AppState, tenant: str, model: str) -> list[OwnedCut]:
    """The cuts that ``tenant`` saved of one of its models, newest first."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(item: str) -> OwnedCut | None:
        async with limit:
            facts = await state.catalog.held(tenant, model, layout.CUTS, item)
        return None if facts is None else OwnedCut(item, model, facts)

    items = await state.catalog.held_items(tenant, model, layout.CUTS)
    found = await asyncio.gather(*map(one, items))
    return sorted(
        (cut for cut in found if cut is not None), key=lambda cut: -float(cut.facts["created_at"])
    )


async def remove_cut(state: AppState, tenant: str, cut: OwnedCut) -> None:
    """Forget a saved cut. What was made of it stays."""
    async with state.catalog.changing(tenant, cut.model):
        for kind in (layout.CUTS, layout.CUT_RESULTS):
            await state.catalog.drop(tenant, cut.model, kind, cut.id)
