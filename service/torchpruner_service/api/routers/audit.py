"""The audit trail: who did what, when, to which model."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Query, Response

from torchpruner_service.api import schemas
from torchpruner_service.api.access import Reader, State
from torchpruner_service.api.answers import json_answer
from torchpruner_service.api.documented import problems
from torchpruner_service.api.paging import Limit, unknown_cursor
from torchpruner_service.storage.audit_log import NAME, page_of_events

router = APIRouter(prefix="/v1", tags=["audit"])


@router.get(
    "/audit",
    response_model=schemas.AuditPage,
    responses=problems(),
    summary="Who did what, when, to which model, newest first",
)
async def list_events(
    state: State,
    who: Reader,
    limit: Limit = 50,
    cursor: Annotated[
        str | None, Query(max_length=100, description="The `next` of the page before this one")
    ] = None,
    model: Annotated[
        str | None,
        Query(pattern="^m[a-z2-7]{26}$", description="Only about this model, removed or not"),
    ] = None,
) -> Response:
    """What the keys of this tenant changed: uploads, weights, cuts, plans, derived models, files, names,
    deletions. Events are only ever added; the newest are kept, as many and for as many days as the
    operator set. Questions about cuts are there too: the first of a burst, and then how many followed.
    Neither keys nor the contents of requests are kept, and removing a model leaves its events."""
    if cursor and not NAME.fullmatch(cursor):
        raise unknown_cursor()
    found = await anyio.to_thread.run_sync(
        page_of_events, state.objects, who.tenant, cursor or "", limit + 1, model
    )
    shown = found[:limit]
    return json_answer({"items": shown, "next": shown[-1]["id"] if len(found) > limit else None})
