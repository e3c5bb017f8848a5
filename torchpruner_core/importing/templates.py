"""Tensors that are made as large as another one: ``zeros_like(f)``, ``level.expand_as(f)``.

The program reads the size off the other tensor as it runs, so the copy is cut along, and whatever the
copy is joined with must be too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.importing.stored_indices import COPIES
from torchpruner_core.operators.base import OperatorNode

MAKERS = {"ConstantOfShape": 0, "Expand": 1}
"""Operators that make a tensor of a given shape, and the input that says which."""

PASSED_ON = COPIES | frozenset(("Abs", "Add", "Div", "Mul", "Neg", "Sub", "Where"))
"""Operators that may compute with a copy and nothing else, and leave its axes what they are."""


def release_templates(nodes: Iterable[DataNode], operators: Iterable[OperatorNode]) -> None:
    """Let copies of a tensor's shape take part in the coupling, and what is computed from them alone.

    Only numbers that data meets: sizes and indices that a program computes from shapes are replaced
    as a whole.
    """
    by_value = {node.value_name: node for node in nodes}
    for operator in operators:
        if operator.is_constant and operator.type in MAKERS and _templates(operator, by_value):
            chain = _computed_from(operator)
            for each in chain or ():
                each.is_constant = False


def declare_templates(
    nodes: Iterable[DataNode], operators: Iterable[OperatorNode], ties: Ties
) -> None:
    """Tie each axis that is made in the size of another tensor's axis to that one."""
    by_value = {node.value_name: node for node in nodes}
    for operator in operators:
        if operator.is_constant or operator.type not in MAKERS:
            continue
        for dim, (template, axis) in _templates(operator, by_value).items():
            ties.same(operator.out_data[0].axis(dim), template.axis(axis))


def _templates(
    operator: OperatorNode, by_value: Mapping[str, DataNode]
) -> dict[int, tuple[DataNode, int]]:
    """Return the axes that are made as long as an axis of a tensor that data is in."""
    out, x = operator.out_data[0], operator.in_data[0]
    shape = operator.input(MAKERS[operator.type])
    if shape is None or not out.dtype.startswith(("float", "bfloat")):
        return {}
    sizes = operator.values.sizes_in(shape.value_name)
    found = {}
    for k, size in enumerate(sizes):
        dim = out.rank - len(sizes) + k
        template = by_value.get(size[0]) if size is not None else None
        if size is None or template is None or dim < 0 or out.shape[dim] == 1:
            continue
        source = dim - (out.rank - x.rank) if operator.type == "Expand" and x is not None else -1
        passes = source >= 0 and x is not None and x.shape[source] == out.shape[dim]
        if not passes and _holds_data(template) and template.shape[size[1]] == out.shape[dim]:
            found[dim] = template, size[1]
    return found


def _holds_data(node: DataNode) -> bool:
    if node.in_operator is not None:
        return not node.in_operator.is_constant
    return node.kind in ("parameter", "buffer", "input")


def _computed_from(operator: OperatorNode) -> list[OperatorNode] | None:
    """Return a maker and the constant operators behind it; ``None`` where one is not of the plain kind."""
    found: dict[int, OperatorNode] = {id(operator): operator}
    pending = [operator]
    while pending:
        for node in pending.pop().out_data:
            for user in node.out_operators:
                if not user.is_constant or user.type in ("Shape", "Size") or id(user) in found:
                    continue
                if user.type not in PASSED_ON:
                    return None
                found[id(user)] = user  # type: ignore[assignment]
                pending.append(user)  # type: ignore[arg-type]
    return list(found.values())
