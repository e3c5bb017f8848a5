"""What goes on: a tenant's jobs, started again where that helps, and the workers that live."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Response

from torchpruner_service.api import schemas
from torchpruner_service.api.access import Reader, State, Writer
from torchpruner_service.api.answers import json_answer
from torchpruner_service.api.audit_trail import Recorded
from torchpruner_service.api.documented import problems
from torchpruner_service.api.jobs_service import living_workers, seen_by, waiting_message
from torchpruner_service.api.jobs_view import SHOWN, job_view
from torchpruner_service.api.ownership import OwnJob
from torchpruner_service.api.paging import Cursor, Limit, page
from torchpruner_service.api.retrying import retried
from torchpruner_service.state.job_record import JobRecord
from torchpruner_service.state.redis_clients import REDIS_ERRORS, unavailable

router = APIRouter(prefix="/v1", tags=["jobs"], route_class=Recorded)


@router.get(
    "/jobs",
    response_model=schemas.Page[schemas.JobView],
    responses=problems(),
    summary="List the jobs of this tenant, newest first",
)
async def list_jobs(
    state: State,
    who: Reader,
    limit: Limit = 50,
    cursor: Cursor = None,
    job_state: Annotated[
        schemas.State | None, Query(alias="state", description="Only jobs in this state")
    ] = None,
    kind: Annotated[
        str | None,
        Query(max_length=20, description="build, weights, attach, onnx or latency"),
    ] = None,
    model: Annotated[str | None, Query(max_length=100, description="Only about this model")] = None,
) -> Response:
    """The newest some hundred that this tenant started; ended jobs are forgotten after some
    days."""
    try:
        found = await anyio.to_thread.run_sync(state.board.newest, who.tenant)
    except REDIS_ERRORS as error:
        raise unavailable(error) from error
    message = await waiting_message(state, "queued")
    since = {entry.model: entry.added_at for entry in await state.catalog.models(who.tenant)}

    def show(record: JobRecord) -> dict[str, Any]:
        shown = {name: getattr(record, name) for name in SHOWN}
        return {**shown, "message": None if record.ended else message}

    chosen = [
        record
        for record in (
            seen_by(each, who.tenant, since[each.model]) for each in found if each.model in since
        )
        if (job_state is None or record.state == job_state)
        and (kind is None or record.kind == kind)
        and (model is None or record.model == model)
    ]
    return json_answer(page(chosen, limit, cursor, show))


@router.post(
    "/jobs/{job}/retry",
    status_code=202,
    response_model=schemas.JobView,
    responses=problems(409),
    summary="Start a job again that was cancelled, or failed for no fault of the model",
)
async def retry_job(state: State, who: Writer, record: OwnJob) -> Response:
    """A model that could not be read, or that broke the sandbox of such workers as there are, would
    do so again: that is a 409."""
    again = await retried(state, who.tenant, record)
    shown = await job_view(state, again, who.tenant)
    return json_answer(shown, 202, {"Location": f"/v1/jobs/{record.id}"})


@router.get(
    "/workers",
    response_model=schemas.Page[schemas.WorkerView],
    responses=problems(),
    summary="List the workers that live",
)
async def list_workers(
    state: State, who: Reader, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    found = sorted(await living_workers(state), key=lambda facts: str(facts["name"]))
    names = schemas.WorkerView.model_fields
    return json_answer(page(found, limit, cursor, lambda facts: {key: facts[key] for key in names}))
