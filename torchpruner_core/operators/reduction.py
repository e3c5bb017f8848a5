"""Operators that reduce axes, or run along one.

Sources: https://onnx.ai/onnx/operators/onnx__ReduceMean.html and the pages beside it.
"""

from __future__ import annotations

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.elementwise import tie_broadcast
from torchpruner_core.operators.registry import describes

SUMS = frozenset({"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum"})
"""Reductions that a slice of zeros leaves unchanged."""


def tie_kept(ties: Ties, x: DataNode, out: DataNode, reduced: set[int], keepdims: bool) -> None:
    """Tie the axes of ``x`` that are not in ``reduced`` to those of ``out``, in order."""
    target = 0
    for dim in range(x.rank):
        if dim not in reduced:
            ties.same(x.axis(dim), out.axis(target))
            target += 1
        elif keepdims:
            target += 1


@describes(
    "ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum",
    "ReduceSumSquare",
)
class Reduction(OperatorNode):
    """Kept axes pass. A reduced axis can be shortened; all but sums then change their statistics."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        axes = self.integers(1, "axes")
        if not axes:
            if self.input(1) is not None and axes is None:
                self.opaque(ties, "which axes are reduced is not known before the model runs")
                return
            axes = [] if self.params.get("noop_with_empty_axes") else list(range(x.rank))
        reduced = {axis % x.rank for axis in axes}
        tie_kept(ties, x, out, reduced, bool(self.params.get("keepdims", 1)))
        for dim in reduced:
            if self.type in SUMS:
                ties.contracts(x.axis(dim))
            else:
                ties.renormalises(x.axis(dim))

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("ReduceLogSum")
class LogReduction(Reduction):
    """A sum's logarithm is infinite where the sum is zero."""

    poles = (0,)


@describes("ReduceLogSumExp")
class ExpReduction(Reduction):
    """Not zero where its operand is."""

    def zero_products(self) -> Products | None:
        return None


@describes("ArgMax", "ArgMin")
class ArgReduction(OperatorNode):
    """The reduced axis is counted in, so its indices must stay."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        axis = int(self.params.get("axis", 0)) % x.rank
        self.opaque_axis(ties, x, axis, "its indices are the result")
        tie_kept(ties, x, out, {axis}, bool(self.params.get("keepdims", 1)))

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("TopK")
class TopK(OperatorNode):
    """The ranked axis is counted in, so its indices must stay; the others pass."""

    def ties(self, ties: Ties) -> None:
        x = self.in_data[0]
        assert x is not None
        axis = int(self.params.get("axis", -1)) % x.rank
        for node in (x, *self.out_data):
            self.opaque_axis(ties, node, axis, "its indices are the result")
        for out in self.out_data:
            for dim in range(x.rank):
                if dim != axis:
                    ties.same(x.axis(dim), out.axis(dim))


@describes("CumSum", "CumProd")
class Cumulative(OperatorNode):
    """Each element depends on those before it along one axis."""

    def ties(self, ties: Ties) -> None:
        x = self.in_data[0]
        assert x is not None
        tie_broadcast(ties, [x], self.out_data[0])
        axis = self.integers(1)
        for dim in range(x.rank) if axis is None else [axis[0] % x.rank]:
            if self.type == "CumSum":
                ties.contracts(x.axis(dim))
            else:
                ties.renormalises(x.axis(dim))
