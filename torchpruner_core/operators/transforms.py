"""Transforms of whole axes, and losses: what they run over stays, what stands beside it passes.

Sources: https://onnx.ai/onnx/operators/onnx__DFT.html and the pages beside it.
"""

from __future__ import annotations

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.elementwise import tie_broadcast
from torchpruner_core.operators.registry import describes


@describes("DFT")
class FourierTransform(OperatorNode):
    """The transformed axis and the last one (real and imaginary parts) stay."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        axis = self.integers(2, "axis") or [1 if self.opset < 20 else -2]
        if self.input(2) is not None and self.value(2) is None:
            self.opaque(ties, "which axis is transformed is not known before the model runs")
            return
        for dim in range(x.rank):
            if dim in (axis[0] % x.rank, x.rank - 1):
                for node in (x, out):
                    self.opaque_axis(ties, node, dim, "it is transformed as a whole")
            else:
                ties.same(x.axis(dim), out.axis(dim))

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("STFT")
class ShortTimeFourierTransform(OperatorNode):
    """Signals of the batch do not mix; nothing else can go."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        ties.same(x.axis(0), out.axis(0))
        for node in (x, out):
            for dim in range(1, node.rank):
                self.opaque_axis(ties, node, dim, "it is transformed as a whole")

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("Det")
class Determinant(OperatorNode):
    """One number a matrix; the axes of the matrix stay."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        for dim in range(x.rank - 2):
            ties.same(x.axis(dim), out.axis(dim))
        for dim in (-2, -1):
            self.opaque_axis(ties, x, dim, "it is an axis of a matrix whose determinant is taken")

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
class Loss(OperatorNode):
    """Classes are addressed by the labels; samples pass, or are reduced."""

    def ties(self, ties: Ties) -> None:
        scores, labels, out = self.in_data[0], self.in_data[1], self.output(0)
        assert scores is not None and labels is not None
        self.opaque_axis(ties, scores, 1, "it is addressed by labels")
        weight = self.input(2)
        if weight is not None:
            self.opaque_axis(ties, weight, 0, "it is addressed by labels")
        summed = self.params.get("reduction", "mean") != "none"
        for dim in range(labels.rank):
            axis = scores.axis(dim + (dim > 0))
            ties.same(labels.axis(dim), axis)
            if summed:
                ties.renormalises(axis)
            elif out is not None:
                ties.same(out.axis(dim), axis)
        log_probability = self.output(1)
        if log_probability is not None:
            tie_broadcast(ties, [scores], log_probability)
