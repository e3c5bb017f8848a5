"""The smallest consistent cut that contains what was asked, as a :class:`CutResult`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from torchpruner_core.analysis.closure import Granularity, Removal
from torchpruner_core.analysis.coupling import ClassSelection
from torchpruner_core.analysis.graph_data import GraphData
from torchpruner_core.cut_result import (
    AxisCuts,
    Choice,
    CutRequest,
    CutResult,
    Indices,
    OperatorChange,
    Renumbering,
    TensorSpec,
)
from torchpruner_core.errors import CutError, OpaqueAxisError


def analyse(graph: GraphData, asked: Sequence[CutRequest], granularity: Granularity) -> CutResult:
    """Return the smallest consistent cut of ``graph`` that contains every checked request.

    Raises ``CutError`` and its subclasses, with the names of the nodes and operators in the way.
    """
    return result_of(graph, asked, _close(graph, asked, granularity))


def _close(graph: GraphData, asked: Sequence[CutRequest], granularity: Granularity) -> Removal:
    parts = []
    for request in asked:
        owner = graph.classes_of(request.node)[request.dim]
        components = graph.coupling.components_of(owner)
        if graph.coupling.class_frozen[owner]:
            reason = graph.coupling.reasons[int(graph.coupling.component_reason[components[0]])]
            raise OpaqueAxisError(
                f"axis {request.dim} of {request.node} cannot be pruned: {reason}",
                node=request.node,
                dim=request.dim,
                reason=reason,
            )
        parts.append(components[np.array(request.index, dtype=np.int64)])
    try:
        return graph.closure.close(np.unique(np.concatenate(parts)), granularity)
    except CutError as error:
        _name_fields(graph, error, asked)
        raise


def _name_fields(graph: GraphData, error: CutError, asked: Sequence[CutRequest]) -> None:
    """Put names where the closure, which knows numbers only, left numbers."""
    operator = error.fields.get("operator")
    if isinstance(operator, int):
        error.fields["operator"] = graph.operator_names[operator]
    owner = error.fields.pop("axis_class", None)
    if owner is not None:
        starts, axes = graph.coupling.axes_of_class
        members = [graph.axis_owner[a] for a in axes[starts[owner] : starts[owner + 1]]]
        if members:
            name, dim = next(((n, d) for n, d, _, end in members if end), members[0][:2])
            error.detail = f"{error.detail} (axis {dim} of {_described(graph, name)})"
            error.args = (error.detail,)
            error.fields.update(node=name, dim=dim)
    error.fields.setdefault("requested", [request.to_dict() for request in asked])


def _described(graph: GraphData, name: str) -> str:
    """Name a tensor for a person: one that is only numbered by what computes it."""
    node = graph.nodes[name]
    if node.kind != "intermediate" or node.producer is None:
        return name
    return f"what {node.producer} computes, of the shape {list(node.shape)}"


def result_of(graph: GraphData, asked: Sequence[CutRequest], removal: Removal) -> CutResult:
    """Return what ``removal`` takes from ``graph``, as the answer to ``asked``."""
    coupling, closure = graph.coupling, graph.closure
    gone: dict[int, Indices] = {c: closure.indices(removal, c) for c in removal.classes}
    for indices in gone.values():
        indices.flags.writeable = False  # one array serves every node of the class
    terminal, iner = _cuts(graph, gone)
    flops_before = graph.flops()
    flops_after = flops_before + graph.flops_change(gone)
    return CutResult(
        terminal=terminal,
        iner=iner,
        operator=_operator_changes(graph, gone),
        requested=tuple(asked),
        added=_added(graph, asked, terminal, iner),
        choices=tuple(_choices(graph, removal)),
        renormalises=tuple(
            dict.fromkeys(graph.operator_names[op] for op, c in coupling.renormalised if c in gone)
        ),
        touches_inputs=tuple(name for name in graph.inputs if name in iner),
        touches_outputs=tuple(name for name in graph.outputs if name in iner or name in terminal),
        literals=tuple(name for name in terminal if graph.nodes[name].kind == "constant"),
        reads_sizes=graph.size_readers.of(iner),
        unread=graph.unread,
        transposed=tuple(n for n in graph.metadata.get("transposed", ()) if n in terminal),
        notes=tuple(graph.metadata.get("notes", ())),
        renumbers=_renumberings(graph, gone),
        params_before=graph.params(),
        params_removed=closure.params_removed(removal),
        flops_before=flops_before,
        flops_after=flops_after,
        macs_before=flops_before // 2,
        macs_after=flops_after // 2,
        inputs=tuple(graph.spec(name) for name in graph.inputs),
        outputs=tuple(_cut_spec(graph, name, iner.get(name)) for name in graph.outputs),
        shapes={name: graph.nodes[name].shape for name in (*terminal, *iner)},
        recount=_Recount(graph),
    )


class _Recount:
    """Counts for a graph that it does not keep alive; a copy or a pickle of it is ``None``."""

    def __init__(self, graph: GraphData) -> None:
        self._graph = weakref.ref(graph)

    def __call__(self, cuts: Mapping[str, AxisCuts]) -> tuple[int, int] | None:
        graph = self._graph()
        if graph is None:
            return None
        gone: dict[int, Indices] = {}
        for name, axes in cuts.items():
            for owner, indices in zip(graph.classes_of(name), axes, strict=True):
                if indices is not None:
                    gone[owner] = indices
        return graph.params_change(gone), graph.flops() + graph.flops_change(gone)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()


def _cuts(
    graph: GraphData, gone: dict[int, Indices]
) -> tuple[dict[str, AxisCuts], dict[str, AxisCuts]]:
    starts, axes_of = graph.coupling.axes_of_class
    axes: list[tuple[int, Indices]] = []
    for owner, indices in gone.items():
        if owner + 1 < len(starts):
            axes += [(a, indices) for a in axes_of[starts[owner] : starts[owner + 1]].tolist()]
    axes.sort(key=_first)
    terminal: dict[str, AxisCuts] = {}
    iner: dict[str, AxisCuts] = {}
    owners = graph.axis_owner
    for axis, indices in axes:
        name, dim, rank, is_terminal = owners[axis]
        cuts = terminal if is_terminal else iner
        if name not in cuts:
            cuts[name] = [None] * rank
        cuts[name][dim] = indices
    return terminal, iner


def _operator_changes(graph: GraphData, gone: dict[int, Indices]) -> dict[str, OperatorChange]:
    changes: dict[str, OperatorChange] = {}
    of_class = graph.coupling.changes_of_class
    for owner, indices in gone.items():
        for change in of_class.get(owner, ()):
            low, high = np.searchsorted(indices, (change.low, change.high))
            amount = change.sign * int(high - low)
            if not amount:
                continue
            entry = changes.setdefault(graph.operator_names[change.operator], {})
            if change.position is None:
                entry[change.key] = amount
            else:
                values = entry.setdefault(change.key, [0] * change.length)
                if isinstance(values, list):
                    values[change.position] += amount
    for selection in graph.coupling.selections:
        if selection.owner in gone:
            shift = _shift(graph, selection, gone)
            if any(shift):
                changes.setdefault(graph.operator_names[selection.operator], {})[selection.key] = (
                    shift
                )
    return changes


def _added(
    graph: GraphData,
    asked: Sequence[CutRequest],
    terminal: dict[str, AxisCuts],
    iner: dict[str, AxisCuts],
) -> dict[str, AxisCuts]:
    wanted: dict[tuple[str, int], set[int]] = {}
    for request in asked:
        wanted.setdefault((request.node, request.dim), set()).update(request.index)
    added: dict[str, AxisCuts] = {}
    for (name, dim), index in wanted.items():
        cuts = terminal.get(name) or iner.get(name) or []
        full = cuts[dim] if cuts else None
        if full is None or len(full) == len(index):
            continue
        extra = np.setdiff1d(full, np.array(sorted(index), dtype=np.int64))
        added.setdefault(name, [None] * len(cuts))[dim] = extra
    return added


def _choices(graph: GraphData, removal: Removal) -> Iterable[Choice]:
    for decision in removal.decisions:
        factors = decision.view.factors
        name = _factor_name(len(factors))
        yield Choice(
            operator=graph.operator_names[decision.view.operator],
            factors=tuple(int(graph.coupling.class_length[f]) for f in factors),
            taken=name(decision.taken),
            rejected=name(decision.rejected),
            taken_cost=decision.taken_cost,
            other_cost=decision.other_cost,
        )


def _cut_spec(graph: GraphData, name: str, cuts: AxisCuts | None) -> TensorSpec:
    spec = graph.spec(name)
    if cuts is None:
        return spec
    sizes = [n - (0 if c is None else len(c)) for n, c in zip(spec.shape, cuts, strict=True)]
    return replace(spec, shape=tuple(sizes))


def _first(pair: tuple[int, Indices]) -> int:
    return pair[0]


def _factor_name(count: int) -> Callable[[int], str]:
    def name(position: int) -> str:
        if position == 0:
            return "outer"
        return "inner" if position == count - 1 else f"factor {position}"

    return name


def _kept(selection: ClassSelection, gone: dict[int, Indices]) -> Indices:
    """Return the entries of a constant of indices that stay, as they were."""
    values = selection.values
    for axis, owner in enumerate(selection.along):
        if owner in gone:
            values = np.delete(values, gone[owner], axis=axis)
    return values


def _shift(graph: GraphData, selection: ClassSelection, gone: dict[int, Indices]) -> list[int]:
    """Return what to subtract from each kept entry of a constant of indices, flattened."""
    size = int(graph.coupling.class_length[selection.owner])
    kept = _kept(selection, gone)
    shift: list[int] = (
        (kept - Renumbering(size, gone[selection.owner]).apply(kept)).ravel().tolist()
    )
    return shift


def _renumberings(graph: GraphData, gone: dict[int, Indices]) -> dict[str, Renumbering]:
    found: dict[str, Renumbering] = {}
    for selection in graph.coupling.selections:
        if selection.owner not in gone:
            continue
        size = int(graph.coupling.class_length[selection.owner])
        operator = graph.operator_names[selection.operator]
        for source in selection.sources:
            earlier = found.get(source)
            readers = (*(earlier.operators if earlier else ()), operator)
            if earlier is not None and earlier.size >= size:
                found[source] = replace(earlier, operators=readers)
                continue
            node = graph.nodes[source]
            whole = selection.values.size == prod(node.shape)
            is_listed = whole and node.kind == "constant"
            values = tuple(selection.values.ravel().tolist()) if is_listed else None
            found[source] = Renumbering(size, gone[selection.owner], readers, whole, values)
    return found
