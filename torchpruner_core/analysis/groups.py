"""Every group of a model: which axes are pruned together, how wide, and what a slice saves."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from torchpruner_core.analysis.graph_data import GraphData
from torchpruner_core.analysis.records import TERMINAL_KINDS
from torchpruner_core.errors import CutError


@dataclass(frozen=True, slots=True)
class Group:
    """Components that reach the same axes.

    ``width`` is the number of slices that can be removed one by one; ``members`` are the axes of
    parameters and buffers they reach, as ``(node, dim)``; ``components`` one number a slice.
    """

    id: int
    width: int
    members: tuple[tuple[str, int], ...]
    components: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SliceCost:
    """What removing the first slice of a group takes, completion included.

    ``removed`` is how many parameter elements, ``flops`` how many FLOPs, ``step`` how many slices
    of the group go at once; ``reason`` says why none can go.
    """

    params: int
    flops: int
    step: int
    reason: str | None = None


def groups(graph: GraphData) -> list[Group]:
    """Return the groups that reach a parameter or buffer, in the order of the graph.

    Those that reach an input or output of the model come last. Components are grouped by the set of
    axes they reach; frozen ones are left out.
    """
    coupling = graph.coupling
    kind, classes = coupling.kinds
    if not classes:
        return []
    terminals = _TerminalAxes(graph)
    flat = np.concatenate(classes)
    first = np.cumsum([0, *map(len, classes[:-1])])
    wanted = np.logical_or.reduceat(terminals.stored[flat], first)
    wanted &= np.logical_or.reduceat(coupling.class_length[flat] > 1, first)
    starts, _ = coupling.classes_of_component
    free = (coupling.component_reason < 0) & (np.diff(starts) > 0)
    components = np.flatnonzero(free & wanted[kind])
    order = components[np.argsort(kind[components], kind="stable")]
    bounds = [0, *(np.flatnonzero(np.diff(kind[order])) + 1).tolist(), len(order)]
    runs = [order[a:b] for a, b in pairwise(bounds) if b > a]
    border = {owner for name in (*graph.inputs, *graph.outputs) for owner in graph.classes_of(name)}
    # What changes the model's own inputs or outputs is seldom what somebody wants to prune.
    runs.sort(key=lambda run: (not border.isdisjoint(classes[kind[run[0]]]), int(run[0])))
    return [
        Group(number, len(run), terminals.of(classes[kind[run[0]]]), tuple(run.tolist()))
        for number, run in enumerate(runs)
    ]


def slice_cost(graph: GraphData, group: Group) -> SliceCost:
    """Return what removing the first slice of ``group`` takes under granularity ``auto``."""
    component = np.array(group.components[:1], dtype=np.int32)
    try:
        removal = graph.closure.close(component, "auto")
    except CutError as error:
        return SliceCost(0, 0, 0, error.detail)
    gone = {owner: graph.closure.indices(removal, owner) for owner in removal.classes}
    step = int(np.count_nonzero(removal.removed[list(group.components)]))
    return SliceCost(graph.closure.params_removed(removal), -graph.flops_change(gone), step)


class _TerminalAxes:
    """Which axes of parameters, buffers and constants each class holds.

    ``stored`` tells of each class whether one of them is a parameter's or a buffer's.
    """

    def __init__(self, graph: GraphData) -> None:
        self.names = [name for name, node in graph.nodes.items() if node.kind in TERMINAL_KINDS]
        rank = [len(graph.nodes[name].shape) for name in self.names]
        self.first = np.array([graph.first_axis[name] for name in self.names], dtype=np.int64)
        self.node = np.repeat(np.arange(len(rank)), np.array(rank, dtype=np.int64))
        before = np.cumsum(np.array([0, *rank[:-1]], dtype=np.int64))[: len(rank)]
        self.dim = np.arange(len(self.node)) - before[self.node]
        owner = graph.coupling.axis_class[self.first[self.node] + self.dim]
        is_stored = np.array([graph.nodes[name].kind != "constant" for name in self.names], bool)
        self.stored = np.zeros(len(graph.coupling.class_length), dtype=np.bool_)
        self.stored[owner[is_stored[self.node]]] = True
        self.order = np.argsort(owner, kind="stable")
        classes = np.arange(len(graph.coupling.class_length) + 1)
        self.starts = np.searchsorted(owner[self.order], classes)

    def of(self, classes: list[int]) -> tuple[tuple[str, int], ...]:
        """Return the axes of some classes as ``(node, dim)``, in the order of the graph."""
        parts = [self.order[self.starts[c] : self.starts[c + 1]] for c in classes]
        found = np.sort(np.concatenate(parts))
        return tuple(
            (self.names[node], dim)
            for node, dim in zip(self.node[found].tolist(), self.dim[found].tolist(), strict=True)
        )
