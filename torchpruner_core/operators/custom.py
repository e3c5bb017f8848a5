"""Between the manual's ``analysis(node, mask)`` and ties: each can be made from the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from torchpruner_core.analysis.closure import Closure
from torchpruner_core.coupling.solve import solve
from torchpruner_core.coupling.ties import Ties
from torchpruner_core.errors import OpaqueAxisError
from torchpruner_core.graph.mask import Mask
from torchpruner_core.graph.nodes import DataNode

Analysis = tuple[dict[str, Mask] | None, dict[str, int] | None]
"""What a mask means for the neighbours: their masks by name, and what to subtract from attributes."""


def ties_from_analysis(
    tensors: Iterable[DataNode],
    analysis: Callable[[DataNode, Mask], Analysis],
    refuse: Callable[[DataNode, int], None],
    ties: Ties,
) -> None:
    """Declare the ties of an operator that answers ``analysis`` only, by asking about each slice.

    ``tensors`` are the operator's. ``refuse`` is told of each axis about which ``analysis`` raises
    or says nothing: it cannot be shortened.
    """
    nodes = {node.name: node for node in tensors}
    for node in nodes.values():
        for dim, size in enumerate(node.shape):
            if size > 1:
                found = _pairs(analysis, node, dim)
                if found is None:
                    refuse(node, dim)
                    continue
                for (name, other_dim), pairs in found.items():
                    target = nodes.get(name)
                    if target is None or (target is node and other_dim == dim):
                        continue
                    ours, theirs = np.array(pairs, dtype=np.int64).T
                    ties.pairs(node.axis(dim), ours, target.axis(other_dim), theirs)


def _pairs(
    analysis: Callable[[DataNode, Mask], Analysis], node: DataNode, dim: int
) -> dict[tuple[str, int], list[tuple[int, int]]] | None:
    """Return ``(index here, index there)`` by the axis they reach; ``None`` where it is refused."""
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for index in range(node.shape[dim]):
        try:
            answer = analysis(node, Mask(node.shape).set_mask([index], dim))
        except Exception:
            answer = None
        masks = answer[0] if isinstance(answer, tuple) else answer
        if not masks:
            return None
        for name, mask in masks.items():
            for other_dim in range(len(mask.shape)):
                for other in mask.indices(other_dim).tolist():
                    found.setdefault((name, other_dim), []).append((index, other))
    return found


def analyse_alone(
    tensors: Sequence[DataNode | None],
    declare: Callable[[Ties, int], None],
    node: DataNode,
    mask: Mask,
) -> Analysis:
    """Answer ``analysis`` from what an operator declares, as if it were the whole graph."""
    ties = Ties()
    nodes = list(dict.fromkeys(n for n in tensors if n is not None))
    saved = [n.first_axis for n in nodes]
    try:
        for item in nodes:
            item.first_axis = ties.new_axes([max(size, 1) for size in item.shape])
        visible = len(ties.lengths)
        declare(ties, 0)
        coupling = solve(ties, (), visible)
        owner = {id(item): coupling.axis_class[item.first_axis :][: item.rank] for item in nodes}
    finally:
        for item, first in zip(nodes, saved, strict=True):
            item.first_axis = first
    asked = []
    for dim, indices in enumerate(mask.cuts()):
        if indices is not None:
            class_of = int(owner[id(node)][dim])
            if coupling.class_frozen[class_of]:
                reason = coupling.reasons[
                    int(coupling.component_reason[coupling.components_of(class_of)[0]])
                ]
                raise OpaqueAxisError(
                    f"axis {dim} of {node.name} cannot be pruned: {reason}", node=node.name, dim=dim
                )
            asked.append(coupling.components_of(class_of)[indices])
    closure = Closure(coupling, [])
    removal = closure.close(np.unique(np.concatenate(asked)), "inner")
    masks: dict[str, Mask] = {}
    for item in nodes:
        found = Mask(item.shape)
        for dim, class_of in enumerate(owner[id(item)].tolist()):
            if class_of in removal.classes:
                found.set_mask(closure.indices(removal, class_of).tolist(), dim)
        if item is not node and found:
            masks[item.name] = found
    changes = {
        change.key: int(np.searchsorted(i, change.high) - np.searchsorted(i, change.low))
        for change in coupling.changes
        if change.position is None and change.owner in removal.classes
        for i in [closure.indices(removal, change.owner)]
    }
    return masks, changes or None
