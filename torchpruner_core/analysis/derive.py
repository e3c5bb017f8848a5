"""The graph after a cut, made by slicing the solved graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from torchpruner_core.analysis.closure import Removal
from torchpruner_core.analysis.coupling import ClassChange, ClassSelection, Coupling
from torchpruner_core.analysis.graph_data import GraphData
from torchpruner_core.analysis.modules import with_costs
from torchpruner_core.cut_result import CutResult, Indices, Renumbering
from torchpruner_core.errors import CutError

Graph = TypeVar("Graph", bound=GraphData)


def derive(graph: Graph, result: CutResult) -> Graph:
    """Return ``graph`` without what ``result`` removes.

    Raises ``CutError`` where ``result`` names nodes or indices the graph does not have, or where
    it is not consistent: removing it would force further removals.
    """
    removal = _removal(graph, _read(graph, result))
    gone = {owner: graph.closure.indices(removal, owner) for owner in removal.classes}
    coupling = _cut_coupling(graph.coupling, gone)
    shapes = _shapes(graph, coupling)
    nodes = {name: replace(node, shape=shapes[name]) for name, node in graph.nodes.items()}
    flops = [0] * len(graph.operators)
    for operator, factor, classes in coupling.costs:
        for owner in classes:
            factor *= int(coupling.class_length[owner])
        flops[operator] += factor
    operators = {
        name: replace(operator, flops=flops[k])
        for k, (name, operator) in enumerate(graph.operators.items())
    }
    modules = with_costs(graph.modules, nodes, operators)
    return replace(graph, nodes=nodes, operators=operators, modules=modules, coupling=coupling)


def _read(graph: GraphData, result: Any) -> CutResult:
    try:
        read: CutResult = result if isinstance(result, CutResult) else CutResult.from_dict(result)
    except (ValueError, TypeError, KeyError) as error:
        raise CutError(f"a cut is what cut_analysis returns: {error}") from error
    for name, shape in read.shapes.items():
        if graph.node(name).shape != tuple(shape):
            raise CutError(
                f"{name} has the shape {list(graph.node(name).shape)} in this graph, and the cut was "
                f"made for {list(shape)}: ask for the cut analysis of this graph",
                node=name,
                expected=list(shape),
                received=list(graph.node(name).shape),
            )
    return read


def _removal(graph: GraphData, result: CutResult) -> Removal:
    parts = []
    for name, axes in (*result.terminal.items(), *result.iner.items()):
        node = graph.node(name)
        if len(axes) != len(node.shape):
            raise CutError(
                f"the cut has {len(axes)} axes for {name}, which has the shape {list(node.shape)}; "
                "it was made for another model",
                node=name,
            )
        for dim, indices in enumerate(axes):
            if indices is None or not len(indices):
                continue
            request = graph.request(name, indices, dim)
            owner = graph.classes_of(name)[dim]
            parts.append(graph.coupling.components_of(owner)[list(request.index)])
    if not parts:
        raise CutError("the cut removes nothing, so there is nothing to derive")
    removal = graph.closure.close(np.unique(np.concatenate(parts)), "auto")
    for name, axes in (*result.terminal.items(), *result.iner.items()):
        for dim, owner in enumerate(graph.classes_of(name)):
            cut = axes[dim]
            listed = 0 if cut is None else len(cut)
            if owner in removal.classes and len(graph.closure.indices(removal, owner)) != listed:
                raise CutError(
                    f"the cut is not consistent: it leaves slices of axis {dim} of {name} that "
                    "must go too; ask for the cut analysis of this model again",
                    node=name,
                    dim=dim,
                )
    return removal


def _cut_coupling(coupling: Coupling, gone: dict[int, Indices]) -> Coupling:
    width = np.where(coupling.class_frozen, 1, coupling.class_length)
    keep = np.ones(len(coupling.component), dtype=np.bool_)
    length = coupling.class_length.copy()
    for owner, indices in gone.items():
        keep[int(coupling.class_start[owner]) + indices] = False
        length[owner] -= len(indices)
    left = np.add.reduceat(keep.astype(np.int64), coupling.class_start) if len(width) else width
    starts = np.zeros_like(coupling.class_start)
    np.cumsum(left[:-1], out=starts[1:])
    return replace(
        coupling,
        class_length=length,
        class_start=starts,
        component=coupling.component[keep],
        changes=tuple(_cut_change(change, gone) for change in coupling.changes),
        selections=tuple(
            _cut_selection(selection, gone, int(coupling.class_length[selection.owner]))
            for selection in coupling.selections
        ),
    )


def _cut_change(change: ClassChange, gone: dict[int, Indices]) -> ClassChange:
    if change.owner not in gone:
        return change
    low, high = np.searchsorted(gone[change.owner], (change.low, change.high))
    return replace(change, low=change.low - int(low), high=change.high - int(high))


def _cut_selection(
    selection: ClassSelection, gone: dict[int, Indices], size: int
) -> ClassSelection:
    values = selection.values
    for axis, owner in enumerate(selection.along):
        if owner in gone:
            values = np.delete(values, gone[owner], axis=axis)
    if selection.owner in gone:
        values = Renumbering(size, gone[selection.owner]).apply(values)
    return replace(selection, values=values)


def _shapes(graph: GraphData, coupling: Coupling) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(int(coupling.class_length[c]) for c in graph.classes_of(name))
        for name in graph.nodes
    }
