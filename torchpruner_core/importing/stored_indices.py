"""Stored tensors of positions: one that addresses a cut axis gets other values.

A buffer of indices is stored once and may be read by several operators. Their axes must then lose
the same slices, as far as the indices reach; and where its values are also computed with, no axis
that they address can be shortened, since they cannot be both the old numbers and the new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from torchpruner_core.coupling.ties import Selection, Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode

COPIES = frozenset(
    (
        "Cast", "CastLike", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split",
        "Squeeze", "Tile", "Transpose", "Unsqueeze",
    )
)  # fmt: skip
"""Operators whose result holds entries of their first input (all inputs of ``Concat``) unchanged."""


ADDRESSING = frozenset(
    ["Gather", "GatherElements", "GatherND", "ScatterElements", "Scatter", "ScatterND"]
)
"""Operators whose second input says places."""


def release_stored_indices(operators: Iterable[OperatorNode]) -> None:
    """Let operators that only rearrange stored indices of the program take part in the coupling.

    What is computed from constants is else replaced as a whole, and its origin would stay as it is.
    """
    for operator in operators:
        if operator.is_constant or operator.type not in ADDRESSING or not operator.stored_in(1):
            continue
        pending = [operator.input(1)]
        while pending:
            node = pending.pop()
            maker = None if node is None else node.in_operator
            if maker is not None and maker.is_constant and maker.type in COPIES:
                maker.is_constant = False
                pending.extend(maker.in_data if maker.type == "Concat" else maker.in_data[:1])


def declare_shared_indices(
    nodes: Iterable[DataNode], operators: Iterable[OperatorNode], ties: Ties
) -> None:
    """Name the sources of every selection by node, and tie the axes that one source addresses."""
    if not ties.selections:
        return
    by_value = {node.value_name: node for node in nodes}
    by_position = list(operators)
    of_source: dict[str, list[Selection]] = {}
    for k, selection in enumerate(ties.selections):
        found = [by_value.get(name) for name in selection.sources]
        known = [node.name for node in found if node is not None and node.is_terminal()]
        named = replace(selection, sources=tuple(known) if len(known) == len(found) else ())
        ties.selections[k] = named
        for value in selection.sources:
            of_source.setdefault(value, []).append(named)
    for value, selections in of_source.items():
        for one, other in pairwise(selections):
            _tie(ties, one, other)
        source = by_value.get(value)
        readers = {selection.operator for selection in selections}
        user = None if source is None else _computes_with(source, readers, by_position)
        if user is not None:
            reason = f"its indices are also computed with ({user.name})"
            for selection in selections:
                ties.opaque(selection.axis, reason)


def _tie(ties: Ties, one: Selection, other: Selection) -> None:
    """Let two axes that the same stored indices address lose the same slices."""
    if one.axis == other.axis:
        return
    if ties.lengths[one.axis] == ties.lengths[other.axis]:
        ties.same(one.axis, other.axis)
    elif min(_lowest(one), _lowest(other)) < 0:
        for selection in (one, other):
            ties.opaque(
                selection.axis, "indices that count from its end are shared with another axis"
            )
    else:
        ties.run(one.axis, 0, other.axis, 0, 1 + max(_highest(one), _highest(other)))


def _lowest(selection: Selection) -> int:
    return int(selection.values.min(initial=0))


def _highest(selection: Selection) -> int:
    return int(selection.values.max(initial=0))


def _computes_with(
    source: DataNode, readers: set[int], operators: Sequence[OperatorNode]
) -> OperatorNode | None:
    """Return an operator that uses a source's values otherwise than as indices, if any does."""
    addressing = {id(operators[position]) for position in readers}
    pending, seen = [source], {source.name}
    while pending:
        node = pending.pop()
        for user in node.out_operators:
            places = [k for k, read in enumerate(user.in_data) if read is node]
            if id(user) in addressing and places == [1]:
                continue
            if user.type in ("Shape", "Size") or (user.type == "Max" and len(user.in_data) == 1):
                continue
            if user.type not in COPIES or (user.type != "Concat" and places != [0]):
                return user  # type: ignore[return-value]
            for out in user.out_data:
                if out.name not in seen:
                    seen.add(out.name)
                    pending.append(out)
        if node.is_output():
            return node.in_operator  # type: ignore[return-value]
    return None
