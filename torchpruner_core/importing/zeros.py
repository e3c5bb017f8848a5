"""Which sums over a pruned axis are exact.

A network with slices removed equals the one with their parameters set to zero, unless an operator
adds up an axis whose removed slices are not zero then: the bias of a sigmoid, an added position.
Convolutions and matrix products with a parameter are always exact, as the parameter's slices are
zero. For a sum or a product of two activations, this pass follows the slices upstream, operator by
operator, as far as needed to know.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from torchpruner_core.coupling.ties import Axis, Ties

if TYPE_CHECKING:
    from torchpruner_core.graph.nodes import DataNode
    from torchpruner_core.operators.base import OperatorNode, Products


class Masked(IntEnum):
    """What the removed slices along an axis hold once the parameters among them are zero."""

    ZERO = 0
    FINITE = 1
    INFINITE = 2


def declare_inexact_sums(
    nodes: Iterable[DataNode], operators: Iterable[OperatorNode], ties: Ties
) -> None:
    """Declare ``renormalises`` where an operator sums over slices that need not be zero."""
    if not ties.contracted:
        return
    followed = _Followed(list(nodes), list(operators), ties)
    followed.find_poles()
    for operator, axes, over in ties.contracted:
        if not followed.is_exact(axes):
            ties.renormalised.append((operator, over))


class _Followed:
    """States of axes, each computed once, by an explicit stack: graphs are deep.

    Where no slice is infinite (``infinite`` is false), a product with a stored tensor is zero
    whatever its other factor, and a sum with a term that never changes is not, whatever the rest:
    few operators are followed then.
    """

    def __init__(self, nodes: list[DataNode], operators: list[OperatorNode], ties: Ties) -> None:
        self.nodes = nodes
        self.operators = operators
        self.producer = {id(node): operator for operator in operators for node in operator.out_data}
        self.ties = ties
        self.first = [node.first_axis for node in nodes]
        self.normalised = set(ties.renormalised)
        self.known: dict[Axis, Masked] = {}
        self.linked: dict[int, dict[Axis, set[Axis]]] = {}
        self.infinite = False

    def find_poles(self) -> None:
        """Note whether any operator divides by slices that are zero when masked."""
        divisors = [
            node.axis(dim)
            for operator in self.operators
            if operator.poles and not operator.is_constant
            for node in map(operator.input, operator.poles)
            if node is not None
            for dim in range(node.rank)
            if node.shape[dim] != 1
        ]
        if any(self.state(axis) is Masked.ZERO for axis in divisors):
            self.infinite = True
            self.known.clear()

    def is_exact(self, axes: Sequence[Axis]) -> bool:
        """Return whether a sum of products over ``axes``, one of each factor, loses only zeros."""
        if not self.infinite:
            return any(self._node(axis).is_terminal() for axis in axes) or any(
                self.state(axis) is Masked.ZERO for axis in axes
            )
        states = [self.state(axis) for axis in axes]
        return min(states) is Masked.ZERO and max(states) is not Masked.INFINITE

    def state(self, axis: Axis) -> Masked:
        pending = [axis]
        while pending:
            current = pending[-1]
            operator = None if current in self.known else self._producer(current)
            if operator is None:
                pending.pop()
                continue
            missing = [a for a in self._needed(operator, current) if a not in self.known]
            if missing:
                pending.extend(missing)
                continue
            self.known[current] = self._combine(operator, current)
            pending.pop()
        return self.known[axis]

    def _node(self, axis: Axis) -> DataNode:
        return self.nodes[bisect_right(self.first, axis) - 1]

    def _producer(self, axis: Axis) -> OperatorNode | None:
        """Return what computes the tensor of ``axis``; where nothing does, note the state."""
        node = self._node(axis)
        producer = self.producer.get(id(node))
        if node.is_terminal():
            self.known[axis] = Masked.ZERO
        elif producer is None or producer.is_constant:
            self.known[axis] = Masked.FINITE
        else:
            return producer
        return None

    def _needed(self, operator: OperatorNode, axis: Axis) -> list[Axis]:
        """Return the axes whose states decide that of ``axis``."""
        wanted = set(operator.poles)
        for product in self._products(operator, axis) or ():
            factors = [k for k in product if operator.input(k) is not None]
            if not self.infinite:
                if any(self._is_stored(operator, k, axis) for k in factors):
                    continue
                if factors and not any(self._axes(operator, k, axis) for k in factors):
                    return []
            wanted.update(factors)
        return [a for k in sorted(wanted) for a in self._axes(operator, k, axis)]

    def _products(self, operator: OperatorNode, axis: Axis) -> Products | None:
        first = self._node(axis) is operator.out_data[0]
        return operator.zero_products() if first or operator.outputs_alike else None

    def _is_stored(self, operator: OperatorNode, position: int, axis: Axis) -> bool:
        node = operator.input(position)
        return (
            node is not None and node.is_terminal() and bool(self._axes(operator, position, axis))
        )

    def _axes(self, operator: OperatorNode, position: int, axis: Axis) -> list[Axis]:
        """Return the axes of one operand that the operator links to ``axis``."""
        node = operator.input(position)
        if node is None:
            return []
        group = self._links(operator.position).get(axis, ())
        return [a for a in range(node.first_axis, node.first_axis + node.rank) if a in group]

    def _combine(self, operator: OperatorNode, axis: Axis) -> Masked:
        def of(position: int) -> Masked:
            if self._is_stored(operator, position, axis):
                return Masked.ZERO
            axes = self._axes(operator, position, axis)
            return max((self.known.get(a, Masked.FINITE) for a in axes), default=Masked.FINITE)

        if any(of(position) is not Masked.FINITE for position in operator.poles):
            return Masked.INFINITE
        position = operator.position
        group = self._links(position).get(axis, ())
        if any((position, a) in self.normalised for a in group):
            return Masked.ZERO
        products = self._products(operator, axis)
        if products is None:
            return Masked.FINITE
        worst = Masked.ZERO
        for product in products:
            factors = [of(k) for k in product if operator.input(k) is not None]
            if factors:
                infinite = max(factors) is Masked.INFINITE
                worst = max(worst, Masked.INFINITE if infinite else min(factors))
        return worst

    def _links(self, operator: int) -> dict[Axis, set[Axis]]:
        """Return, for each axis that one operator ties, the set of axes it is linked to."""
        if operator not in self.linked:
            groups: dict[Axis, set[Axis]] = {}
            for axes in self.ties.links(operator):
                merged = set(axes)
                for axis in axes:
                    merged |= groups.get(axis, set())
                for axis in merged:
                    groups[axis] = merged
            self.linked[operator] = groups
        return self.linked[operator]
