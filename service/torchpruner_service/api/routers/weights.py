"""Weights for a model that was uploaded without them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from torchpruner_service.api import schemas
from torchpruner_service.api.access import State, Writer
from torchpruner_service.api.answers import json_answer
from torchpruner_service.api.audit_trail import Recorded
from torchpruner_service.api.documented import problems
from torchpruner_service.api.jobs_view import job_view
from torchpruner_service.api.path_ids import ModelId
from torchpruner_service.api.weights_service import attach_weights

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=Recorded)


@router.post(
    "/{model}/weights",
    status_code=202,
    response_model=schemas.JobView,
    responses={
        200: {"model": schemas.JobView, "description": "The model has them already"},
        **problems(409, 413, 507),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
    summary="Add the weights of a model that came without",
)
async def add_weights(
    request: Request,
    state: State,
    who: Writer,
    model: ModelId,
    content_digest: Annotated[str | None, Header(max_length=1000)] = None,
) -> Response:
    """Send the whole ONNX file whose weightless form the model is. A worker checks that it is that
    file; the model's id stays."""
    record = await attach_weights(request, state, who, model, content_digest)
    status = 200 if record.state == "ready" else 202
    return json_answer(
        await job_view(state, record, who.tenant), status, {"Location": f"/v1/jobs/{record.id}"}
    )
