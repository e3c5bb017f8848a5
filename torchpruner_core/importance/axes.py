"""Which axes get scores: those of parameters that the graph says can be shortened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from torchpruner_core.calibration.errors import UnscorableModelError
from torchpruner_core.planning.scores import Axis


def solved_graph(graph: Any) -> Any:
    """Return the solved graph behind an ``ONNXGraph``, or the solved graph itself.

    Raises ``UnscorableModelError`` for anything else.
    """
    if hasattr(graph, "build_graph"):
        graph = graph.solved
    if not hasattr(graph, "coupling"):
        raise UnscorableModelError(
            "the second argument is the graph, built: graph = tp.ONNXGraph(model); "
            "graph.build_graph(inputs); "
            f"it is {type(graph).__name__}",
            received=type(graph).__name__,
        )
    return graph


def prunable_axes(graph: Any) -> dict[str, tuple[int, ...]]:
    """Return the dimensions of each floating-point parameter that can be shortened.

    Tied parameters are there once, under the name of the one that holds the memory. Raises
    ``UnscorableModelError`` where there is none.
    """
    solved = solved_graph(graph)
    coupling = solved.coupling
    found: dict[str, tuple[int, ...]] = {}
    for name, node in solved.nodes.items():
        if node.kind != "parameter" or node.alias_of is not None or "float" not in node.dtype:
            continue
        dims = []
        for dim, owner in enumerate(solved.classes_of(name)):
            if node.shape[dim] < 2 or coupling.class_frozen[owner]:
                continue
            reasons = coupling.component_reason[coupling.components_of(owner)]
            if bool(np.any(reasons < 0)):
                dims.append(dim)
        if dims:
            found[name] = tuple(dims)
    if not found:
        raise UnscorableModelError(
            "no parameter of this graph has an axis that can be shortened; graph.solved.groups() "
            "lists what can"
        )
    return found


def axes_of(graph: Any) -> Iterator[Axis]:
    """Yield ``(node, dim)`` for every axis that gets scores."""
    for name, dims in prunable_axes(graph).items():
        for dim in dims:
            yield name, dim
