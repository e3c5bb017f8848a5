"""Operators that compute each element from the elements at the same place, with broadcasting.

Source: https://onnx.ai/onnx/repo-docs/Broadcasting.html
"""

from __future__ import annotations

from collections.abc import Sequence

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.nodes import UNKNOWN, DataNode
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.registry import describes


def tie_broadcast(ties: Ties, operands: Sequence[DataNode | None], out: DataNode) -> None:
    """Tie each operand's axes to those of ``out`` that they are not stretched to."""
    for operand in operands:
        if operand is None:
            continue
        for dim, size in enumerate(operand.shape):
            target = out.rank - operand.rank + dim
            if target < 0 or (size == 1 and out.shape[target] != 1):
                continue
            if UNKNOWN in (size, out.shape[target]) and size != out.shape[target]:
                ties.opaque(operand.axis(dim), "its size is not known before the model runs")
                ties.opaque(out.axis(target), "its size is not known before the model runs")
            else:
                ties.same(operand.axis(dim), out.axis(target))


@describes(
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Where",
    "Xor",
)
class Elementwise(OperatorNode):
    """All operands and the output agree on every axis that is not stretched."""

    def ties(self, ties: Ties) -> None:
        operands = self.in_data[:1] if self.type in ("CastLike", "Clip", "Shrink") else self.in_data
        tie_broadcast(ties, operands, self.out_data[0])


@describes("Dropout")
class Dropout(OperatorNode):
    """The output and the optional mask have the input's shape."""

    def ties(self, ties: Ties) -> None:
        for out in self.out_data:
            tie_broadcast(ties, self.in_data[:1], out)
