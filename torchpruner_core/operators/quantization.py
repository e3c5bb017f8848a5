"""Quantisation: to integers and back, and products of quantised tensors.

Scales and zero points are one for the tensor, one a slice of an axis, or one a block of an axis.
A slice that is masked with zeros is a slice of zeros only where its zero point is zero: elsewhere
sums over it change, and are declared so.
Sources: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html and the pages beside it.
"""

from __future__ import annotations

import numpy as np

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.convolution import tie_convolution
from torchpruner_core.operators.elementwise import tie_broadcast
from torchpruner_core.operators.matmul import tie_matmul
from torchpruner_core.operators.registry import describes


def is_centred(operator: OperatorNode, position: int) -> bool:
    """Return whether a zero point is left out or known to be zero."""
    if operator.input(position) is None:
        return True
    known = operator.value(position)
    return known is not None and not np.any(known)


@describes("DequantizeLinear")
class Dequantization(OperatorNode):
    """The output has the input's shape; the scale has one entry a slice, or a block, of ``axis``."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        tie_broadcast(ties, [x], out)
        block = int(self.params.get("block_size", 0))
        for parameter in (self.input(1), self.input(2)):
            if parameter is None or parameter.shape in ((), (1,)):
                continue
            axis = int(self.params.get("axis", 1)) % x.rank
            if parameter.rank == 1 and not block:
                ties.same(parameter.axis(0), x.axis(axis))
                continue
            for dim in range(x.rank):
                if dim != axis:
                    ties.same(parameter.axis(dim), x.axis(dim))
            self._tie_blocks(ties, parameter, x, axis, block)

    def _tie_blocks(
        self, ties: Ties, parameter: DataNode, x: DataNode, axis: int, block: int
    ) -> None:
        count, size = parameter.shape[axis], x.shape[axis]
        if count * block != size:
            for node in (parameter, x):
                self.opaque_axis(ties, node, axis, "its last block of a scale is cut short")
            return
        inner = ties.new_axis(block)
        if block > 1:
            ties.opaque(inner, f"slices of a block share a scale ({self.name})")
        ties.view(x.axis(axis), [parameter.axis(axis), inner])

    def zero_products(self) -> Products | None:
        return ((0,),) if is_centred(self, 2) else None


@describes("QuantizeLinear")
class Quantization(Dequantization):
    """As above; it divides by the scale."""

    poles = (1,)


@describes("DynamicQuantizeLinear")
class DynamicQuantization(OperatorNode):
    """The scale and zero point are computed from the whole tensor."""

    def ties(self, ties: Ties) -> None:
        x = self.in_data[0]
        assert x is not None
        tie_broadcast(ties, [x], self.out_data[0])
        for dim in range(x.rank):
            ties.renormalises(x.axis(dim))


@describes("ConvInteger", "QLinearConv")
class QuantizedConvolution(OperatorNode):
    """A convolution of integers; the weight's scale and zero point may be one an output channel."""

    def ties(self, ties: Ties) -> None:
        linear = self.type == "QLinearConv"
        x, weight = self.in_data[0], self.in_data[3 if linear else 1]
        out = self.out_data[0]
        assert x is not None and weight is not None
        tie_convolution(ties, self, x, weight, out)
        for position in (4, 5, 8) if linear else (3,):
            given = self.input(position)
            if given is not None and given.shape not in ((), (1,)):
                ties.same(given.axis(0), out.axis(1))
        if weight.is_terminal() and not is_centred(self, 5 if linear else 3):
            ties.renormalises(x.axis(1))

    def zero_products(self) -> Products | None:
        if self.type == "ConvInteger":
            return ((1,),) if is_centred(self, 3) else None
        return ((3,), (8,)) if is_centred(self, 5) and is_centred(self, 7) else None


@describes("MatMulInteger", "QLinearMatMul")
class QuantizedMatMul(OperatorNode):
    """As ``MatMul``; scales and zero points are scalars, or one a row of ``A`` or column of ``B``."""

    def ties(self, ties: Ties) -> None:
        linear = self.type == "QLinearMatMul"
        a, b, out = self.in_data[0], self.in_data[3 if linear else 1], self.out_data[0]
        assert a is not None and b is not None
        tie_matmul(ties, a, b, out)
        rows = ((1, 2), a), ((4, 5), b), ((6, 7), out)
        plain = ((2,), a), ((3,), b)
        for positions, operand in rows if linear else plain:
            for position in positions:
                self._tie_parameter(ties, position, operand, -1 if operand is b else -2)
        for operand, position in zip((a, b), self._centres(), strict=True):
            if operand.is_terminal() and not is_centred(self, position):
                ties.renormalises(a.axis(-1))

    def _centres(self) -> tuple[int, int]:
        return (2, 5) if self.type == "QLinearMatMul" else (2, 3)

    def _tie_parameter(self, ties: Ties, position: int, operand: DataNode, dim: int) -> None:
        given = self.input(position)
        if given is None or given.shape in ((), (1,)) or operand.rank < 2:
            return
        if given.rank == 1:
            ties.same(given.axis(0), operand.axis(dim))
        else:
            tie_broadcast(ties, [given], operand)

    def zero_products(self) -> Products | None:
        linear = self.type == "QLinearMatMul"
        centred = all(is_centred(self, p) for p in (*self._centres(), *((7,) if linear else ())))
        return ((0, 3 if linear else 1),) if centred else None
