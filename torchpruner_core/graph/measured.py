"""Numbers in a network that are computed from the size of one of its tensors.

The scale of attention, one over the root of a head's size, is often read off the tensor as it runs.
Where that axis is cut the number changes, and with it what the network computes: the operator that
uses the number *renormalises* over the axis.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.values import Values, attributes, operands

if TYPE_CHECKING:
    from torchpruner_core.graph.nodes import DataNode
    from torchpruner_core.operators.base import OperatorNode

Measured = set[tuple[str, int]]


def declare_measured(
    nodes: Iterable[DataNode], operators: Iterable[OperatorNode], values: Values, ties: Ties
) -> None:
    """Declare ``renormalises`` where an operator multiplies by, or adds, a number that is a size."""
    by_value = {node.value_name: node for node in nodes if node.alias_of is None}
    known: dict[str, Measured] = {}
    for position, operator in enumerate(operators):
        if operator.is_constant:
            continue
        for node in operator.in_data:
            if node is None or not is_measured(node, values):
                continue
            for name, dim in measured_axes(values, node.value_name, known):
                measured = by_value.get(name)
                if measured is not None and dim < measured.rank:
                    ties.renormalised.append((position, measured.axis(dim)))


def is_measured(node: DataNode, values: Values) -> bool:
    """Return whether a tensor is one real number that follows from the sizes of others."""
    producer = node.in_operator
    if producer is None or not producer.is_constant or not node.dtype.startswith(("float", "bfloat")):
        return False
    if any(size != 1 for size in node.shape):
        return False
    adapts = values.adapts(node.value_name)
    return adapts is not None and bool(adapts.any())


def measured_axes(values: Values, name: str, known: dict[str, Measured]) -> Measured:
    """Return the axes ``(tensor, dim)`` whose sizes ``name`` is computed from.

    ``known`` keeps what was found, from call to call.
    """
    pending = [name]
    while pending:
        current = pending[-1]
        if current in known:
            pending.pop()
            continue
        producer = values.producers.get(current)
        if producer is None:
            known[current] = set()
            continue
        if producer.op_type in ("Shape", "Size"):
            shape = values.shapes.get(producer.input[0]) or ()
            given = attributes(producer)
            dims = range(len(shape))[given.get("start", 0) : given.get("end", len(shape))]
            known[current] = {(producer.input[0], dim) for dim in dims}
            continue
        source = values.producers.get(producer.input[0]) if producer.input else None
        if source is not None and source.op_type == "Shape" and producer.op_type in _PICKS:
            known[current] = _picked(values, producer, source)
            continue
        needed = operands(producer)
        missing = [i for i in needed if i not in known]
        if missing:
            pending.extend(missing)
            continue
        known[current] = set().union(*(known[i] for i in needed))
    return known[name]


_PICKS = frozenset({"Gather", "Slice"})


def _picked(values: Values, producer: object, source: object) -> Measured:
    """Return the axes that a selection of entries of a ``Shape`` reads."""
    name = source.input[0]  # type: ignore[attr-defined]
    shape = values.shapes.get(name) or ()
    numbered = values.rerun(producer, {0: np.arange(len(shape), dtype=np.int64)})
    if numbered is None:
        return {(name, dim) for dim in range(len(shape))}
    return {(name, int(dim)) for dim in numbered.ravel().tolist()}
