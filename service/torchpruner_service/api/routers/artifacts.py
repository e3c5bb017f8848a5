"""Files made from a model: pruned weights and pruned ONNX, asked for and downloaded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from torchpruner_service.api import schemas
from torchpruner_service.api.access import Reader, State, Writer
from torchpruner_service.api.answers import json_answer
from torchpruner_service.api.artifacts_service import (
    artifact_view,
    remove_artifact,
    request_artifact,
)
from torchpruner_service.api.audit_trail import Recorded
from torchpruner_service.api.documented import problems
from torchpruner_service.api.downloads import download
from torchpruner_service.api.following import follow, wait_for
from torchpruner_service.api.ownership import ArtifactFacts, OwnArtifact
from torchpruner_service.api.path_ids import ModelId
from torchpruner_service.api.routers.models import Wait
from torchpruner_service.api.webhook_request import webhook_of
from torchpruner_service.problems import Conflict
from torchpruner_service.storage import layout

router = APIRouter(prefix="/v1", tags=["artifacts"], route_class=Recorded)

Webhook = Annotated[
    str | None, Header(max_length=2000, description="URL to POST to when it is made")
]
WebhookSecret = Annotated[str | None, Header(max_length=200)]

_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/models/{model}/pruned-weights",
    status_code=202,
    response_model=schemas.ArtifactView,
    responses={
        200: {"model": schemas.ArtifactView, "description": "Made already"},
        **problems(409, 413, 507),
    },
    summary="Have the weights cut, as safetensors or .npz",
)
async def pruned_weights(
    state: State,
    who: Writer,
    model: ModelId,
    body: schemas.PrunedWeights,
    torchpruner_webhook: Webhook = None,
    torchpruner_webhook_secret: WebhookSecret = None,
) -> Response:
    """The state of the model without the slices of ``result`` (all of it, without one), under the
    names that ``load_state_dict(strict=True)`` asks for. The same request gives the same artifact
    and the same bytes."""
    watchers = webhook_of(torchpruner_webhook, torchpruner_webhook_secret, state.settings)
    shown = await request_artifact(state, who, model, "weights", body.format, body.result, watchers)
    return accepted(shown)


@router.post(
    "/models/{model}/pruned-onnx",
    status_code=202,
    response_model=schemas.ArtifactView,
    responses={
        200: {"model": schemas.ArtifactView, "description": "Made already"},
        **problems(409, 413, 507),
    },
    summary="Have the model cut, as ONNX",
)
async def pruned_onnx(
    state: State,
    who: Writer,
    model: ModelId,
    body: schemas.PrunedOnnx,
    torchpruner_webhook: Webhook = None,
    torchpruner_webhook_secret: WebhookSecret = None,
) -> Response:
    watchers = webhook_of(torchpruner_webhook, torchpruner_webhook_secret, state.settings)
    shown = await request_artifact(state, who, model, "onnx", "onnx", body.result, watchers)
    return accepted(shown)


@router.get(
    "/artifacts/{artifact}",
    response_model=schemas.ArtifactView,
    responses=problems(),
    summary="An artifact and how far it is",
)
async def show_artifact(state: State, artifact: OwnArtifact, wait: Wait = 0) -> Response:
    shown = await artifact_view(state, artifact)
    if wait and shown["state"] in {"queued", "running"}:
        await wait_for(state, shown["job"], wait)
        shown = await artifact_view(state, artifact)
    return json_answer(shown)


@router.get(
    "/artifacts/{artifact}/events",
    response_class=EventSourceResponse,
    responses=problems(),
    summary="Follow an artifact being made, as server-sent events",
)
async def artifact_events(
    state: State, who: Reader, artifact: OwnArtifact
) -> AsyncIterator[ServerSentEvent]:
    shown = await artifact_view(state, artifact)
    async for record in follow(state, shown["job"], who.tenant):
        ended = record["ended_at"] is not None
        yield ServerSentEvent(data=record, event="end" if ended else "progress")


@router.delete(
    "/artifacts/{artifact}",
    status_code=204,
    response_class=Response,
    responses=problems(),
    summary="Remove an artifact; cancels it where it is being made",
)
async def delete_artifact(state: State, who: Writer, artifact: OwnArtifact) -> Response:
    """The same request makes the same artifact again."""
    await remove_artifact(state, who.tenant, artifact)
    return Response(status_code=204)


_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The whole file",
        "content": {
            "application/vnd.safetensors": _BINARY,
            "application/vnd.numpy.npz": _BINARY,
            "application/vnd.onnx": _BINARY,
        },
    },
    206: {"description": "The asked range"},
    304: {"description": "The file that the caller has"},
    412: {"model": schemas.Problem, "description": "If-Match names another file"},
    416: {"model": schemas.Problem, "description": "The range is outside the file"},
    **problems(409),
}


@router.get(
    "/artifacts/{artifact}/content",
    response_class=Response,
    responses=_CONTENT,
    summary="Download an artifact",
)
@router.head(
    "/artifacts/{artifact}/content",
    response_class=Response,
    responses=_CONTENT,
    summary="Size and ETag of an artifact",
)
async def artifact_content(
    request: Request, state: State, artifact: OwnArtifact, facts: ArtifactFacts
) -> Response:
    """Ranges, If-Range, If-Match and If-None-Match work; the ETag is the file's sha256."""
    if facts is None:
        shown = await artifact_view(state, artifact)
        raise Conflict(
            f"the artifact is not made yet ({shown['state']}, {shown['stage']}); wait for it "
            f"to be ready",
            slug="artifact-failed" if shown["state"] == "failed" else "artifact-not-ready",
            state=shown["state"],
            cause=shown.get("problem"),
        )
    name = f"{facts['model']}-{artifact[:9]}.{facts['format']}"
    return download(request, state.objects, layout.artifact(artifact), facts, name)


def accepted(shown: dict[str, object]) -> Response:
    ready = shown["state"] == "ready"
    headers = {"Location": f"/v1/artifacts/{shown['id']}"}
    if not ready:
        headers["Retry-After"] = "1"
    return json_answer(shown, 200 if ready else 202, headers)
