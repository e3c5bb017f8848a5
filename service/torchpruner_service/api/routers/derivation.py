"""Cuts in sequence: a model derived from another, and where it came from."""

from __future__ import annotations

from fastapi import APIRouter, Response

from torchpruner_service.api import models_service, schemas
from torchpruner_service.api.access import Reader, State, Writer
from torchpruner_service.api.answers import json_answer
from torchpruner_service.api.audit_trail import Recorded
from torchpruner_service.api.documented import problems
from torchpruner_service.api.lineage import lineage_of
from torchpruner_service.api.path_ids import ModelId

router = APIRouter(prefix="/v1/models", tags=["derivation"], route_class=Recorded)


@router.post(
    "/{model}/derive",
    status_code=201,
    response_model=schemas.ModelView,
    responses=problems(409, 413, 507),
    summary="The model that is left after a cut",
)
async def derive_model(state: State, who: Writer, model: ModelId, body: schemas.Derive) -> Response:
    """A model of its own, ready at once: the solved graph is sliced, not rebuilt. The same parent
    and cut are the same model, so several clients that prune in step see one lineage."""
    shown = await models_service.derive(state, who, model, body)
    return json_answer(shown, 201, {"Location": f"/v1/models/{shown['id']}"})


@router.get(
    "/{model}/lineage",
    response_model=schemas.LineageView,
    responses=problems(),
    summary="What a model was derived from, and what from it",
)
async def show_lineage(state: State, who: Reader, model: ModelId) -> Response:
    return json_answer(await lineage_of(state, who, model))
