"""Every group of a model: which axes are pruned together, how wide, and what a slice saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.errors import CutError

if TYPE_CHECKING:
    from torchpruner_core.analysis.solved_graph import SolvedGraph


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


def groups(graph: SolvedGraph) -> list[Group]:
    """Return the groups that reach a parameter or buffer, in the order of the graph.

    Components are grouped by the set of axes they reach; frozen ones are left out.
    """
    coupling = graph.coupling
    starts, classes = coupling.classes_of_component
    if not len(classes):
        return []
    has_member = _terminal_classes(graph)
    sizes = np.diff(starts)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    code = np.random.default_rng(0).integers(1, 2**62, len(coupling.class_length), dtype=np.uint64)
    signature = np.zeros(len(sizes), dtype=np.uint64)
    np.add.at(signature, owner, code[classes])
    reaches = np.zeros(len(sizes), dtype=np.bool_)
    np.logical_or.at(reaches, owner, has_member[classes])
    long = np.zeros(len(sizes), dtype=np.bool_)
    np.logical_or.at(long, owner, coupling.class_length[classes] > 1)
    wanted = np.flatnonzero(reaches & long & (coupling.component_reason < 0))
    _, first, inverse = np.unique(signature[wanted], return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    bounds = np.searchsorted(inverse[order], np.arange(len(first) + 1))
    found = []
    for number in np.argsort(first):
        components = wanted[order[bounds[number] : bounds[number + 1]]]
        reached = classes[starts[components[0]] : starts[components[0] + 1]]
        found.append((components, reached))
    return [
        Group(k, len(components), _members(graph, reached), tuple(components.tolist()))
        for k, (components, reached) in enumerate(found)
    ]


def slice_cost(graph: SolvedGraph, group: Group) -> SliceCost:
    """Return what removing the first slice of ``group`` takes under granularity ``auto``."""
    component = np.array(group.components[:1], dtype=np.int32)
    try:
        removal = graph.closure.close(component, "auto")
    except CutError as error:
        return SliceCost(0, 0, 0, error.detail)
    gone = {owner: graph.closure.indices(removal, owner) for owner in removal.classes}
    step = int(np.count_nonzero(removal.removed[list(group.components)]))
    return SliceCost(graph.closure.params_removed(removal), -graph.flops_change(gone), step)


def _terminal_classes(graph: SolvedGraph) -> NDArray[np.bool_]:
    reached = np.zeros(len(graph.coupling.class_length), dtype=np.bool_)
    for name, node in graph.nodes.items():
        if node.kind in ("parameter", "buffer"):
            reached[list(graph.classes_of(name))] = True
    return reached


def _members(graph: SolvedGraph, classes: NDArray[np.int32]) -> tuple[tuple[str, int], ...]:
    starts, axes = graph.coupling.axes_of_class
    found = sorted(a for c in classes.tolist() for a in axes[starts[c] : starts[c + 1]].tolist())
    owners = [graph.axis_owner[axis] for axis in found]
    return tuple((name, dim) for name, dim, _, is_terminal in owners if is_terminal)
