"""Saved cuts: kept under a name, listed, shown, forgotten."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Response

from torchpruner_service.api import schemas
from torchpruner_service.api.access import Reader, State, Writer
from torchpruner_service.api.answers import json_answer
from torchpruner_service.api.audit_trail import Recorded
from torchpruner_service.api.cut_schemas import CutSave, SavedCutView
from torchpruner_service.api.documented import problems
from torchpruner_service.api.ownership import OwnCut, OwnModel
from torchpruner_service.api.paging import Cursor, Limit, page_of_views
from torchpruner_service.api.path_ids import ModelId
from torchpruner_service.api.saved_cuts_service import (
    cuts_of,
    remove_cut,
    save_cut,
    saved_cut_view,
)

router = APIRouter(prefix="/v1", tags=["cuts"], route_class=Recorded)


@router.post(
    "/models/{model}/cuts",
    status_code=201,
    response_model=SavedCutView,
    responses={200: {"model": SavedCutView, "description": "Saved already"}, **problems(409, 413)},
    summary="Save a cut under a name",
)
async def save_model_cut(state: State, who: Writer, model: ModelId, body: CutSave) -> Response:
    """What was asked is analysed and kept with what it removes; a result that is sent is checked
    first. A model has one cut of each name."""
    cut, new = await save_cut(state, who, model, body)
    shown = await saved_cut_view(state, who.tenant, cut)
    return json_answer(shown, 201 if new else 200, {"Location": f"/v1/cuts/{cut.id}"})


@router.get(
    "/models/{model}/cuts",
    response_model=schemas.Page[SavedCutView],
    responses=problems(),
    summary="List the saved cuts of a model, newest first",
)
async def list_model_cuts(
    state: State, who: Reader, model: OwnModel, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    found = await cuts_of(state, who.tenant, model)
    brief = partial(saved_cut_view, state, who.tenant, whole=False)
    return json_answer(await page_of_views(found, limit, cursor, brief))


@router.get(
    "/cuts/{cut}",
    response_model=SavedCutView,
    responses=problems(),
    summary="A saved cut: what was asked, and what it removes",
)
async def show_cut(state: State, who: Reader, cut: OwnCut) -> Response:
    """The `result` goes to `derive`, `pruned-weights`, `pruned-onnx` and `latency` as it is."""
    return json_answer(await saved_cut_view(state, who.tenant, cut))


@router.delete(
    "/cuts/{cut}",
    status_code=204,
    response_class=Response,
    responses=problems(),
    summary="Forget a saved cut",
)
async def delete_cut(state: State, who: Writer, cut: OwnCut) -> Response:
    """What was made of it (models, files, measurements) stays."""
    await remove_cut(state, who.tenant, cut)
    return Response(status_code=204)
