"""Models: uploaded, listed, shown, removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from torchpruner_service.api import description_service, models_service, schemas
from torchpruner_service.api.access import Reader, State, Writer
from torchpruner_service.api.answers import json_answer
from torchpruner_service.api.audit_trail import Recorded
from torchpruner_service.api.csv_answers import CSV, AsCsv, csv_answer
from torchpruner_service.api.documented import problems
from torchpruner_service.api.following import follow, wait_for
from torchpruner_service.api.model_list import list_views
from torchpruner_service.api.ownership import OwnModel
from torchpruner_service.api.paging import Cursor, Limit, page
from torchpruner_service.api.path_ids import ModelId
from torchpruner_service.api.receiving import UPLOAD_BODY, receive_model
from torchpruner_service.api.webhook_request import webhook_of

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=Recorded)

MODEL_COLUMNS = (
    "id", "name", "state", "format", "size", "weightless", "has_weights", "counts.params",
    "counts.flops", "counts.operators", "counts.modules", "counts.groups", "parent", "tags", "note",
    "created_at",
)  # fmt: skip

Wait = Annotated[
    float, Query(ge=0, le=60, description="Seconds to wait for the job to end before answering")
]


@router.post(
    "",
    status_code=202,
    response_model=schemas.ModelView,
    responses={
        200: {"model": schemas.ModelView, "description": "Known already: no work to do"},
        **problems(409, 413, 415, 507),
    },
    openapi_extra={"requestBody": UPLOAD_BODY},
    summary="Upload a model, or name one that was uploaded",
)
async def create_model(
    request: Request,
    state: State,
    who: Writer,
    inputs: Annotated[
        str | None, Query(max_length=16384, description="Inputs as a JSON list of InputSpec")
    ] = None,
    input: Annotated[
        list[str] | None,
        Query(
            max_length=256, description="One input, in short: `x:1x3x224x224:float32`. Repeatable"
        ),
    ] = None,
    name: Annotated[
        str | None, Query(max_length=200, description="A name to list it under")
    ] = None,
    content_digest: Annotated[
        str | None,
        Header(max_length=1000, description="RFC 9530: `sha-256=:<base64>:`, checked on arrival"),
    ] = None,
    torchpruner_webhook: Annotated[
        str | None, Header(max_length=2000, description="URL to POST to when the graph is built")
    ] = None,
    torchpruner_webhook_secret: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """Send the file as the body (`curl --data-binary @model.onnx`), as the part ``file`` of a
    multipart form, or send JSON with the sha256 of a file you have uploaded before.

    The kind of file is told from its content. TorchScript needs ``inputs``; ONNX has its own, which
    ``inputs`` overrides (dynamic dimensions need it). The same bytes with the same inputs are one
    model: uploading them twice does the work once.
    """
    watchers = webhook_of(torchpruner_webhook, torchpruner_webhook_secret, state.settings)
    shown, started = await receive_model(
        request,
        state,
        who,
        inputs=inputs,
        short_inputs=input or [],
        name=name,
        content_digest=content_digest,
        watchers=watchers,
    )
    status = 200 if shown["state"] == "ready" and not started else 202
    location = f"/v1/models/{shown['id']}"
    headers = {"Location": location}
    if status == 202:
        headers["Retry-After"] = "1"
    return json_answer(shown, status, headers)


@router.get(
    "",
    response_model=schemas.Page[schemas.ModelView],
    responses={**CSV, **problems()},
    summary="List the models of this tenant, newest first",
)
async def list_models(
    state: State,
    who: Reader,
    limit: Limit = 50,
    cursor: Cursor = None,
    name: Annotated[
        str | None, Query(max_length=200, description="Only names that hold this, in either case")
    ] = None,
    tag: Annotated[
        list[str] | None, Query(max_length=50, description="Only with this tag. Repeatable: all")
    ] = None,
    as_csv: AsCsv = False,
) -> Response:
    entries = await state.catalog.models(who.tenant)
    chosen = description_service.matching(entries, name, tag or [])
    if as_csv:
        views = await list_views(state, who.tenant, chosen)
        return csv_answer("models", MODEL_COLUMNS, views)
    shown = page(chosen, limit, cursor, lambda entry: entry)
    return json_answer({**shown, "items": await list_views(state, who.tenant, shown["items"])})


@router.post(
    "/bulk-delete",
    response_model=schemas.RemovalView,
    responses=problems(413),
    summary="Remove several models",
)
async def delete_models(state: State, who: Writer, body: schemas.Removal) -> Response:
    """Each as `DELETE /v1/models/{model}` does. One that is not there, or cannot be removed now, keeps no
    other: look at each result."""
    results = await description_service.remove_many(state, who.tenant, body.models)
    return json_answer({"results": results})


@router.patch(
    "/{model}",
    response_model=schemas.ModelView,
    responses=problems(412, 413),
    summary="Rename a model, or change its note and tags",
)
async def describe_model(
    state: State,
    who: Writer,
    model: ModelId,
    body: schemas.Description,
    if_match: Annotated[
        str | None,
        Header(max_length=1000, description="The ETag that the model had when it was read"),
    ] = None,
) -> Response:
    """What the body leaves out stays as it is, whatever others change at the same time. With `If-Match`
    nothing is changed where somebody else was faster: that is a 412."""
    shown = await description_service.change(state, who.tenant, model, body, if_match)
    return _described(shown)


def _described(shown: dict[str, Any]) -> Response:
    tag = f'"{shown["revision"]}"'
    return json_answer(shown, headers={"ETag": tag, "Cache-Control": "no-cache"})


@router.get(
    "/{model}",
    response_model=schemas.ModelView,
    responses=problems(),
    summary="A model and the state of its graph",
)
async def show_model(state: State, who: Reader, model: ModelId, wait: Wait = 0) -> Response:
    """The ETag is that of the name, note and tags: send it as `If-Match` to change these."""
    await models_service.manifest_of(state, who.tenant, model)
    if wait:
        await wait_for(state, models_service.build_job(model), wait)
    return _described(await models_service.view(state, who.tenant, model))


@router.head(
    "/{model}",
    response_class=Response,
    responses=problems(),
    summary="Whether there is such a model",
)
async def head_model(state: State, who: Reader, model: ModelId) -> Response:
    await models_service.manifest_of(state, who.tenant, model)
    return Response()


@router.delete(
    "/{model}",
    status_code=204,
    response_class=Response,
    responses=problems(),
    summary="Remove a model; cancels its build",
)
async def delete_model(state: State, who: Writer, model: ModelId) -> Response:
    """The model is gone from this tenant at once, with its files and jobs. A build in progress is
    stopped unless another tenant waits for the same model."""
    await models_service.remove(state, who.tenant, model)
    return Response(status_code=204)


@router.get(
    "/{model}/events",
    response_class=EventSourceResponse,
    responses=problems(),
    summary="Follow the build as server-sent events",
)
async def model_events(
    state: State, who: Reader, model: OwnModel
) -> AsyncIterator[ServerSentEvent]:
    """An event ``progress`` for each change, with the job as data, and one ``end`` when it has
    ended."""
    async for record in follow(state, models_service.build_job(model), who.tenant):
        yield ServerSentEvent(
            data=record, event="end" if record["ended_at"] is not None else "progress"
        )
