"""Questions about a graph, answered from numpy: modules, groups, cuts, FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import APIRouter, Query, Response

from torchpruner_core.analysis.records import Record, record_to_dict
from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import CutResult
from torchpruner_core.cut_warnings import cut_warnings
from torchpruner_service.api import graph_views, schemas
from torchpruner_service.api.access import Reader, State
from torchpruner_service.api.answers import json_answer
from torchpruner_service.api.audit_trail import Recorded
from torchpruner_service.api.csv_answers import CSV, AsCsv, csv_answer
from torchpruner_service.api.cut_results import analysed, check_answer
from torchpruner_service.api.deprecation import deprecated
from torchpruner_service.api.documented import problems
from torchpruner_service.api.models_service import graph_of
from torchpruner_service.api.paging import Cursor, Limit, page
from torchpruner_service.api.path_ids import ModelId

router = APIRouter(prefix="/v1/models/{model}", tags=["analysis"], route_class=Recorded)

Prefix = Annotated[
    str | None, Query(max_length=1000, description="Only names that start with this")
]
Type = Annotated[str | None, Query(max_length=200, description="Only this type")]

MODULE_COLUMNS = ("name", "type", "parent", "params", "flops", "macs")

SMALL, FEW = 20_000, 4
"""Slices and cuts up to which an answer is made in the event loop: switching threads would cost as
much."""


def _chosen(
    records: Mapping[str, Record], prefix: str | None, wanted: Callable[[Record], bool]
) -> list[Record]:
    """Those whose names start with ``prefix`` and that are ``wanted``, in the graph's order."""
    return [
        record
        for name, record in records.items()
        if name.startswith(prefix or "") and wanted(record)
    ]


@router.get(
    "/modules",
    response_model=schemas.Page[schemas.ModuleView],
    responses={**CSV, **problems(409)},
    summary="List the modules, parameters and buffers included",
)
async def list_modules(
    state: State,
    who: Reader,
    model: ModelId,
    limit: Limit = 100,
    cursor: Cursor = None,
    prefix: Prefix = None,
    type: Type = None,
    as_csv: AsCsv = False,
) -> Response:
    graph = (await graph_of(state, who.tenant, model)).graph
    chosen = _chosen(graph.modules, prefix, lambda module: type in (None, module.type))
    if as_csv:
        rows = map(record_to_dict, chosen)
        return csv_answer(f"{model}-modules", MODULE_COLUMNS, rows)
    return json_answer(page(chosen, limit, cursor, record_to_dict))


@router.get(
    "/nodes",
    response_model=schemas.Page[schemas.NodeView],
    responses=problems(409),
    summary="List the tensors of the graph",
)
async def list_nodes(
    state: State,
    who: Reader,
    model: ModelId,
    limit: Limit = 100,
    cursor: Cursor = None,
    prefix: Prefix = None,
    kind: Annotated[
        str | None,
        Query(
            max_length=20,
            description="parameter, buffer, constant, input, output or intermediate",
        ),
    ] = None,
) -> Response:
    graph = (await graph_of(state, who.tenant, model)).graph
    chosen = _chosen(graph.nodes, prefix, lambda node: kind in (None, node.kind))
    return json_answer(page(chosen, limit, cursor, record_to_dict))


@router.get(
    "/operators",
    response_model=schemas.Page[schemas.OperatorView],
    responses=problems(409),
    summary="List the operators in the order they run",
)
async def list_operators(
    state: State,
    who: Reader,
    model: ModelId,
    limit: Limit = 100,
    cursor: Cursor = None,
    prefix: Prefix = None,
    type: Type = None,
) -> Response:
    graph = (await graph_of(state, who.tenant, model)).graph
    chosen = _chosen(graph.operators, prefix, lambda operator: type in (None, operator.type))
    return json_answer(page(chosen, limit, cursor, record_to_dict))


@router.get(
    "/groups",
    response_model=schemas.Page[schemas.GroupView],
    responses=problems(409),
    summary="List what is pruned together, and what a slice of it saves",
)
async def list_groups(
    state: State, who: Reader, model: ModelId, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    cached = await graph_of(state, who.tenant, model)

    def answer() -> dict[str, Any]:
        groups = cached.view("groups", lambda graph: graph.groups())
        shown: dict[int, Any] = cached.view("group views", lambda _: {})

        def show(group: Any) -> Any:
            if group.id not in shown:
                shown[group.id] = graph_views.group_view(cached.graph, group)
            return shown[group.id]

        return page(groups, limit, cursor, show)

    return json_answer(await anyio.to_thread.run_sync(answer))


@router.get(
    "/flops",
    response_model=schemas.FlopsView,
    responses=problems(409),
    summary="FLOPs of one forward pass",
)
async def show_flops(
    state: State,
    who: Reader,
    model: ModelId,
    by: Annotated[
        list[Literal["module", "operator"]] | None,
        Query(max_length=2, description="`module`, `operator` or both"),
    ] = None,
) -> Response:
    """Two FLOPs a multiply-accumulate, as ``torch.utils.flop_counter`` counts them; a module's
    include those of everything below it."""
    cached = await graph_of(state, who.tenant, model)
    graph = cached.graph
    body: dict[str, Any] = {"flops": graph.flops(), "macs": graph.macs(), "params": graph.params()}
    if by and "module" in by:
        body["by_module"] = graph_views.flops_by_module(graph)
    if by and "operator" in by:
        body["by_operator"] = graph_views.flops_by_operator(graph)
    return json_answer(body)


@router.post(
    "/cut-analysis",
    response_model=schemas.CutView,
    responses=problems(409, 413),
    summary="What else must go if these slices go",
)
@router.post(
    "/cut_analysis",
    response_model=schemas.CutView,
    responses=problems(409, 413),
    operation_id="cut_analysis_underscored",
    summary="The library's spelling of cut-analysis",
    **deprecated(
        since=datetime(2026, 11, 24, tzinfo=UTC),
        sunset=datetime(2028, 1, 1, tzinfo=UTC),
        successor="/v1/models/{model}/cut-analysis",
    ),
)
async def cut_analysis(
    state: State,
    who: Reader,
    model: ModelId,
    body: schemas.CutOne | schemas.CutMany,
    flops: Annotated[
        str | None,
        Query(pattern="^module$", description="`module` adds FLOPs before and after by module"),
    ] = None,
) -> Response:
    """The smallest consistent cut that contains every slice asked for, and what it saves. Nothing
    is changed: replay the result on your own model, ask for pruned weights, or derive a model from
    it."""
    graph = (await graph_of(state, who.tenant, model)).graph

    def analyse() -> Response:
        result = analysed(graph, body)
        check_answer(result, state.settings.max_answer_bytes)
        answer = {"model": model, **result.to_dict(), "warnings": cut_warnings(result)}
        if flops:
            answer["flops_by_module"] = _module_flops(graph, result)
        return json_answer(answer)

    small = isinstance(body, schemas.CutOne) or len(body.cuts) <= FEW
    if len(graph.coupling.component) <= SMALL and small and not flops:
        return analyse()
    return await anyio.to_thread.run_sync(analyse, limiter=state.analyses)


def _module_flops(graph: SolvedGraph, result: CutResult) -> dict[str, dict[str, int]]:
    after = graph.derive(result).modules
    return {
        name: {"before": module.flops, "after": after[name].flops}
        for name, module in graph.modules.items()
        if module.flops
    }
