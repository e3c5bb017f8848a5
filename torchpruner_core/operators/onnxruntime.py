"""Fused operators that onnxruntime's optimiser writes into files, domain ``com.microsoft``.

ONNX has no schema for them, so each also says the shapes of its outputs. The others of that domain
are opaque, as any operator that nobody described.
Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import numpy as np

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.elementwise import tie_broadcast
from torchpruner_core.operators.registry import describes


@describes(
    "com.microsoft::Gelu com.microsoft::QuickGelu com.microsoft::BiasGelu com.microsoft::FastGelu"
)
class FusedGelu(OperatorNode):
    """Gelu, of the sum with a bias where there is one."""

    def ties(self, ties: Ties) -> None:
        tie_broadcast(ties, self.in_data, self.out_data[0])

    def fill_shape(self) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        out.shape, out.dtype = x.shape, x.dtype

    def zero_products(self) -> Products | None:
        return ((0,), (1,))


@describes("com.microsoft::SkipLayerNormalization com.microsoft::SkipSimplifiedLayerNormalization")
class SkipNormalization(OperatorNode):
    """Layer or RMS normalisation of a sum; the sum itself may be the fourth output."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        total = self.output(3)
        tie_broadcast(ties, self.in_data, out)
        if total is not None:
            tie_broadcast(ties, [total], out)
        for statistic in (self.output(1), self.output(2)):
            if statistic is not None:
                tie_broadcast(ties, [statistic], out)
        ties.renormalises(x.axis(-1))

    def fill_shape(self) -> None:
        x = self.in_data[0]
        assert x is not None
        for node in self.out_data:
            node.shape, node.dtype = x.shape, x.dtype
        for statistic in (self.output(1), self.output(2)):
            if statistic is not None:
                statistic.shape, statistic.dtype = (*x.shape[:-1], 1), "float32"


@describes("com.microsoft::FusedMatMul")
class FusedMatMul(OperatorNode):
    """``alpha * A' @ B'``, either transposed in its last two axes."""

    def ties(self, ties: Ties) -> None:
        a, b, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert a is not None and b is not None
        if self.params.get("transBatchA") or self.params.get("transBatchB"):
            self.opaque(ties, "batches are transposed inside it")
            return
        rows, inner = (-1, -2) if self.params.get("transA") else (-2, -1)
        inner_b, columns = (-1, -2) if self.params.get("transB") else (-2, -1)
        contracted = a.axis(inner), b.axis(inner_b)
        ties.same(*contracted)
        ties.contracts(*contracted)
        ties.same(a.axis(rows), out.axis(-2))
        ties.same(b.axis(columns), out.axis(-1))
        for operand in (a, b):
            for dim in range(operand.rank - 2):
                target = out.rank - operand.rank + dim
                if operand.shape[dim] != 1 or out.shape[target] == 1:
                    ties.same(operand.axis(dim), out.axis(target))
        ties.cost(2, [*(out.axis(dim) for dim in range(out.rank)), contracted[0]])

    def fill_shape(self) -> None:
        a, b, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert a is not None and b is not None
        rows = a.shape[-1 if self.params.get("transA") else -2]
        columns = b.shape[-2 if self.params.get("transB") else -1]
        out.shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), rows, columns)
        out.dtype = a.dtype

    def zero_products(self) -> Products | None:
        return ((0, 1),)
