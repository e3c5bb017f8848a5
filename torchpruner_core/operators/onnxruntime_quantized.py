"""Quantised operators of onnxruntime's own domain, ``com.microsoft``.

Scales and zero points of one number are the tensor's; longer ones have one a column and are cut with
it. As for ONNX's own, a zero of the integers is a zero of the numbers only where the zero point is.
Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from torchpruner_core.coupling.ties import Axis, Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.elementwise import tie_broadcast
from torchpruner_core.operators.matmul import tie_matmul
from torchpruner_core.operators.onnxruntime import shape_as
from torchpruner_core.operators.quantization import (
    Dequantization,
    Quantization,
    QuantizedConvolution,
    is_centred,
)
from torchpruner_core.operators.recurrent import Recurrent
from torchpruner_core.operators.registry import describes


def tie_columns(ties: Ties, node: DataNode | None, columns: Axis) -> None:
    """Tie a scale, zero point or bias with one entry a column; one of a single number is free."""
    if node is not None and node.rank and node.shape != (1,):
        ties.same(node.axis(node.rank - 1), columns)


def like(node: DataNode | None, out: DataNode) -> None:
    """Give ``out`` the shape and dtype of ``node``."""
    assert node is not None
    out.shape, out.dtype = node.shape, node.dtype


@describes("com.microsoft::QuantizeLinear")
class FusedQuantization(Quantization):
    """As ONNX's; takes more integers."""

    def fill_shape(self) -> None:
        zero = self.input(2)
        like(self.in_data[0], self.out_data[0])
        self.out_data[0].dtype = zero.dtype if zero is not None else "uint8"


@describes("com.microsoft::DequantizeLinear")
class FusedDequantization(Dequantization):
    """As ONNX's; takes more integers."""

    def fill_shape(self) -> None:
        scale = self.in_data[1]
        like(self.in_data[0], self.out_data[0])
        self.out_data[0].dtype = scale.dtype if scale is not None else "float32"


@describes("com.microsoft::QLinearConv")
class FusedQuantizedConvolution(QuantizedConvolution):
    """As ONNX's; with channels last, no rule follows it."""

    def ties(self, ties: Ties) -> None:
        if self.params.get("channels_last"):
            self.opaque(ties, "its channels come last, which no rule follows")
        else:
            super().ties(ties)

    def fill_shape(self) -> None:
        shape_as(self, "Conv", (0, 3), dropped=("channels_last",))
        self.out_data[0].dtype = self.in_data[0].dtype if self.in_data[0] is not None else "uint8"


@describes("com.microsoft::QLinearAdd com.microsoft::QLinearMul")
class QuantizedPair(OperatorNode):
    """Two quantised tensors, element by element, with broadcasting."""

    def ties(self, ties: Ties) -> None:
        tie_broadcast(ties, [self.in_data[0], self.in_data[3]], self.out_data[0])

    def fill_shape(self) -> None:
        a, b, out = self.in_data[0], self.in_data[3], self.out_data[0]
        assert a is not None and b is not None
        out.shape, out.dtype = np.broadcast_shapes(a.shape, b.shape), a.dtype


@describes("com.microsoft::QLinearSigmoid com.microsoft::QLinearLeakyRelu")
class QuantizedFunction(OperatorNode):
    """A function of each element."""

    def ties(self, ties: Ties) -> None:
        tie_broadcast(ties, self.in_data[:1], self.out_data[0])

    def fill_shape(self) -> None:
        like(self.in_data[0], self.out_data[0])


@describes("com.microsoft::QLinearSoftmax")
class QuantizedSoftmax(QuantizedFunction):
    """Before operator set 13 over all axes from ``axis`` on, later over that one."""

    def ties(self, ties: Ties) -> None:
        super().ties(ties)
        x = self.in_data[0]
        assert x is not None
        old = int(self.params.get("opset", 13)) < 13
        axis = int(self.params.get("axis", 1 if old else -1)) % x.rank
        for dim in range(axis, x.rank if old else axis + 1):
            ties.renormalises(x.axis(dim))


@describes("com.microsoft::QLinearWhere")
class QuantizedWhere(OperatorNode):
    """One of two quantised tensors, element by element."""

    def ties(self, ties: Ties) -> None:
        tie_broadcast(ties, [self.in_data[k] for k in (0, 1, 4)], self.out_data[0])

    def fill_shape(self) -> None:
        nodes = [self.in_data[k] for k in (0, 1, 4)]
        out = self.out_data[0]
        out.shape = np.broadcast_shapes(*(node.shape for node in nodes if node is not None))
        out.dtype = nodes[1].dtype if nodes[1] is not None else "uint8"


@describes("com.microsoft::QLinearConcat")
class QuantizedConcat(OperatorNode):
    """Tensors one behind the other along ``axis``, each with its scale and zero point."""

    def ties(self, ties: Ties) -> None:
        out = self.out_data[0]
        axis, start = int(self.params["axis"]) % out.rank, 0
        for x in self.in_data[2::3]:
            assert x is not None
            for dim in range(x.rank):
                if dim != axis:
                    ties.same(x.axis(dim), out.axis(dim))
            ties.run(out.axis(axis), start, x.axis(axis), 0, x.shape[axis])
            start += x.shape[axis]

    def fill_shape(self) -> None:
        parts, out = [x for x in self.in_data[2::3] if x is not None], self.out_data[0]
        axis = int(self.params["axis"]) % parts[0].rank
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        out.shape, out.dtype = tuple(shape), parts[0].dtype


@describes("com.microsoft::QLinearAveragePool com.microsoft::QLinearGlobalAveragePool")
class QuantizedPool(OperatorNode):
    """Batch and channels pass; spatial axes are pooled over."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        channel = x.rank - 1 if self.params.get("channels_last") else 1
        for dim in (0, channel):
            ties.same(x.axis(dim), out.axis(dim))
        for node in (x, out):
            for dim in range(1, node.rank):
                if dim != channel:
                    self.opaque_axis(ties, node, dim, "it is pooled over")

    def fill_shape(self) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        last = bool(self.params.get("channels_last"))
        if self.type == "QLinearGlobalAveragePool":
            ones = (1,) * (x.rank - 2)
            out.shape = (x.shape[0], *ones, x.shape[-1]) if last else (*x.shape[:2], *ones)
        elif last:
            self.opaque_shape()
        else:
            shape_as(self, "AveragePool", (0,), dropped=("channels_last",))
        out.dtype = x.dtype

    def opaque_shape(self) -> None:
        """Put channels second for ONNX's rule, and last again."""
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        given = x.shape
        x.shape = (given[0], given[-1], *given[1:-1])
        try:
            shape_as(self, "AveragePool", (0,), dropped=("channels_last",))
        finally:
            x.shape = given
        out.shape = (out.shape[0], *out.shape[2:], out.shape[1])


@describes(
    "com.microsoft::MatMulIntegerToFloat com.microsoft::DynamicQuantizeMatMul com.microsoft::QGemm"
)
class FusedQuantizedMatMul(OperatorNode):
    """A product with a quantised weight; scale, zero point and bias have one entry a column, or one."""

    COLUMNS: ClassVar[dict[str, tuple[int, tuple[int, ...]]]] = {
        "MatMulIntegerToFloat": (1, (3, 5, 6)),
        "DynamicQuantizeMatMul": (1, (2, 3, 4)),
        "QGemm": (3, (4, 5, 6)),
    }
    CENTRE: ClassVar[dict[str, int]] = {"MatMulIntegerToFloat": 5, "QGemm": 5}

    def ties(self, ties: Ties) -> None:
        weight_at, columns = self.COLUMNS[self.type]
        a, b, out = self.in_data[0], self.in_data[weight_at], self.out_data[0]
        assert a is not None and b is not None
        if self.type == "QGemm":
            rows, inner = (1, 0) if self.params.get("transA") else (0, 1)
            inner_b, column = (1, 0) if self.params.get("transB") else (0, 1)
            ties.same(a.axis(inner), b.axis(inner_b))
            ties.same(a.axis(rows), out.axis(0))
            ties.same(b.axis(column), out.axis(1))
            ties.contracts(a.axis(inner), b.axis(inner_b))
            ties.cost(2, [out.axis(0), out.axis(1), a.axis(inner)])
            contracted = a.axis(inner)
        else:
            tie_matmul(ties, a, b, out)
            contracted = a.axis(-1)
        for position in columns:
            tie_columns(ties, self.input(position), out.axis(-1))
        if self.type == "DynamicQuantizeMatMul":
            for dim in range(a.rank):
                ties.renormalises(a.axis(dim))  # one scale is taken from the whole tensor
        elif not is_centred(self, self.CENTRE[self.type]):
            ties.renormalises(contracted)

    def fill_shape(self) -> None:
        weight_at, _ = self.COLUMNS[self.type]
        if self.type == "QGemm":
            shape_as(self, "Gemm", (0, weight_at))
            zero = self.input(8)
            self.out_data[0].dtype = zero.dtype if zero is not None else "float32"
            return
        shape_as(self, "MatMul", (0, weight_at))
        scale = self.in_data[3 if self.type == "MatMulIntegerToFloat" else 2]
        self.out_data[0].dtype = scale.dtype if scale is not None else "float32"


@describes("com.microsoft::MatMulNBits")
class BlockQuantizedMatMul(OperatorNode):
    """A weight of N columns by blocks of a row of K; slices of a block share a scale.

    Zero points are packed several a byte along the blocks: those stay then.
    """

    def ties(self, ties: Ties) -> None:
        a, b, scales, out = *self.in_data[:3], self.out_data[0]
        assert a is not None and b is not None and scales is not None
        columns, inner = out.axis(-1), a.axis(-1)
        block, size = int(self.params["block_size"]), int(self.params["K"])
        ties.same(b.axis(0), columns)
        ties.change("N", columns)
        for dim in range(a.rank - 1):
            ties.same(a.axis(dim), out.axis(dim))
        blocks = b.axis(1)
        self.opaque_axis(ties, b, 2, "it packs the bits of a block")
        if size != b.shape[1] * block:
            self.opaque_axis(ties, a, a.rank - 1, "its last block of a scale is cut short")
            self.opaque_axis(ties, b, 1, "its last block of a scale is cut short")
        else:
            within = ties.new_axis(block)
            ties.opaque(within, f"slices of a block share a scale ({self.name})")
            ties.view(inner, [blocks, within])
            ties.change("K", inner)
        for given in (scales, self.input(3)):
            self._tie_scale(ties, given, columns, blocks)
        tie_columns(ties, self.input(5), columns)
        groups = self.input(4)
        if groups is not None:
            self.opaque(ties, "it orders the rows of the weight", [groups, a])
        ties.renormalises(inner)
        ties.cost(2, [*(out.axis(dim) for dim in range(out.rank)), inner])

    def _tie_scale(self, ties: Ties, given: DataNode | None, columns: Axis, blocks: Axis) -> None:
        if given is None:
            return
        count = ties.lengths[columns]
        if given.rank == 1 and given.shape[0] == count * ties.lengths[blocks]:
            ties.view(given.axis(0), [columns, blocks])
        elif given.rank == 2 and given.shape == (count, ties.lengths[blocks]):
            ties.same(given.axis(0), columns)
            ties.same(given.axis(1), blocks)
        elif given.shape[0] % count == 0:
            packed = ties.new_axis(given.shape[-1] if given.rank == 2 else given.shape[0] // count)
            ties.opaque(packed, f"it packs several zero points a byte ({self.name})")
            ties.opaque(blocks, f"zero points are packed along it ({self.name})")
            if given.rank == 2:
                ties.same(given.axis(0), columns)
                ties.same(given.axis(1), packed)
            else:
                ties.view(given.axis(0), [columns, packed])
        else:
            self.opaque(ties, "its layout is not known", [given])

    def fill_shape(self) -> None:
        a, out = self.in_data[0], self.out_data[0]
        assert a is not None
        out.shape, out.dtype = (*a.shape[:-1], int(self.params["N"])), a.dtype


@describes("com.microsoft::DynamicQuantizeLSTM")
class QuantizedLSTM(Recurrent):
    """An LSTM whose weights are quantised, and transposed: W (D, I, 4*H), R (D, H, 4*H)."""

    def ties(self, ties: Ties) -> None:
        x, w, r = self.in_data[0], self.in_data[1], self.in_data[2]
        assert x is not None and w is not None and r is not None
        hidden = r.axis(1)
        ties.source(hidden)
        if "hidden_size" in self.params:
            ties.change("hidden_size", hidden)
        ties.same(x.axis(2), w.axis(1))
        ties.contracts(x.axis(2), w.axis(1))
        for position, dim in ((1, 2), (2, 2), (3, 1), (7, 1)):
            weight = self.input(position)
            if weight is not None:
                self._tie_gates(ties, weight.axis(dim), hidden)
                self.opaque_axis(ties, weight, 0, "it counts directions")
        for position in (8, 9, 10, 11):
            scale = self.input(position)
            if scale is not None and scale.rank:
                self.opaque_axis(ties, scale, 0, "it counts directions")
                if scale.rank == 2:
                    self._tie_gates(ties, scale.axis(1), hidden)
        for axis in (x.axis(1), x.axis(2), hidden):
            ties.renormalises(axis)  # one scale is taken from all that enters a step
        self.opaque_axis(ties, x, 0, "a recurrence runs along it")
        lengths, out = self.input(4), self.output(0)
        if lengths is not None:
            ties.same(lengths.axis(0), x.axis(1))
        for node in (self.input(5), self.input(6), self.output(1), self.output(2)):
            if node is not None:
                ties.same(node.axis(2), hidden)
                ties.same(node.axis(1), x.axis(1))
                self.opaque_axis(ties, node, 0, "it counts directions")
        if out is not None:
            ties.same(out.axis(3), hidden)
            ties.same(out.axis(0), x.axis(0))
            ties.same(out.axis(2), x.axis(1))
            self.opaque_axis(ties, out, 1, "it counts directions")
        for weight in (w, r):
            ties.cost(2 * x.shape[0], [x.axis(1), *(weight.axis(dim) for dim in range(3))])

    def fill_shape(self) -> None:
        x, r = self.in_data[0], self.in_data[2]
        assert x is not None and r is not None
        steps, batch, _ = x.shape
        directions, hidden = r.shape[0], r.shape[1]
        shapes = ((steps, directions, batch, hidden), *((directions, batch, hidden),) * 2)
        for position, shape in enumerate(shapes):
            out = self.output(position)
            if out is not None:
                out.shape, out.dtype = shape, x.dtype
