"""Operators that compute each element from the elements at the same place, with broadcasting.

Source: https://onnx.ai/onnx/repo-docs/Broadcasting.html
"""

from __future__ import annotations

from collections.abc import Sequence

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.dtypes import UNKNOWN
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.registry import describes

SIZE_UNKNOWN = "its size is not known before the model runs"


def tie_broadcast(ties: Ties, operands: Sequence[DataNode | None], out: DataNode) -> None:
    """Tie each operand's axes to those of ``out`` that they are not stretched to."""
    for operand in operands:
        if operand is None:
            continue
        shape = operand.shape
        shift = len(out.shape) - len(shape)
        for dim, size in enumerate(shape):
            target = shift + dim
            whole = out.shape[target] if target >= 0 else UNKNOWN
            if target < 0 or (size == 1 and whole != 1):
                continue
            if size != whole and UNKNOWN in (size, whole):
                ties.opaque(operand.first_axis + dim, SIZE_UNKNOWN)
                ties.opaque(out.first_axis + target, SIZE_UNKNOWN)
            else:
                ties.same(operand.first_axis + dim, out.first_axis + target)


class Elementwise(OperatorNode):
    """All operands and the output agree on every axis that is not stretched.

    Before operator set 7 the second operand may begin at ``axis`` of the first instead of ending
    where it ends; a ``PRelu`` has one slope a channel then.
    """

    def ties(self, ties: Ties) -> None:
        second, out = self.input(1), self.out_data[0]
        first_dim = 1 if self.type == "PRelu" else self.params.get("axis")
        if second is None or first_dim is None or self.opset >= 7:
            tie_broadcast(ties, self.in_data, out)
            return
        tie_broadcast(ties, self.in_data[:1], out)
        for dim, size in enumerate(second.shape):
            target = int(first_dim) % out.rank + dim
            if size != 1 or out.shape[target] == 1:
                ties.same(second.axis(dim), out.axis(target))


@describes(
    "Acos Acosh Cos Cosh Equal Exp GreaterOrEqual HardSigmoid LessOrEqual Not Sigmoid",
    "BitwiseNot Softplus",
)
class MovesZero(Elementwise):
    """Functions that are not zero at zero."""


@describes(
    "Abs Asin Asinh Atan Atanh Ceil Celu Elu Erf Floor Gelu HardSwish Identity IsInf",
    "IsNaN LeakyRelu Mish Neg Relu Round Selu Sign Sin Sinh Softsign Sqrt Swish Tan",
    "Tanh ThresholdedRelu BitShift PRelu BitCast",
)
class KeepsZero(Elementwise):
    """Functions that are zero where their first operand is."""

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("Log Reciprocal")
class Pole(Elementwise):
    """Functions that are infinite at zero."""

    poles = (0,)


@describes("Div Mod")
class Quotient(Elementwise):
    """Zero where the first operand is; undefined where the second is."""

    poles = (1,)

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("Mul And BitwiseAnd SwiGLU")
class Product(Elementwise):
    """Zero where any operand is."""

    def zero_products(self) -> Products | None:
        return (tuple(range(len(self.in_data))),)


@describes("Add Sub Sum Mean Max Min Or Xor BitwiseOr BitwiseXor Greater Less")
class Combination(Elementwise):
    """Zero where all operands are."""

    def zero_products(self) -> Products | None:
        return tuple((k,) for k in range(len(self.in_data)))


@describes("Where")
class Where(Elementwise):
    """Zero where both choices are, or one of them and the condition excludes the other."""

    def zero_products(self) -> Products | None:
        return ((0, 1), (2,))


@describes("Pow")
class Power(Elementwise):
    """Zero where the base is, if the exponent is one positive number."""

    def zero_products(self) -> Products | None:
        exponent = self.value(1)
        positive = exponent is not None and exponent.size == 1 and exponent.item() > 0
        return ((0,),) if positive else None


@describes("Cast CastLike Clip Shrink")
class Converted(OperatorNode):
    """Element by element of the first input; further inputs give a type or scalar bounds."""

    def ties(self, ties: Ties) -> None:
        tie_broadcast(ties, self.in_data[:1], self.out_data[0])
        if self.type == "CastLike":
            like = self.in_data[1]
            assert like is not None
            ties.free(*(like.axis(dim) for dim in range(like.rank)))

    def zero_products(self) -> Products | None:
        if self.type == "Clip" and not self._zero_in_bounds():
            return None
        return ((0,),)

    def _zero_in_bounds(self) -> bool:
        bounds = []
        for position, key in ((1, "min"), (2, "max")):
            given = self.value(position)
            if given is None and self.input(position) is not None:
                return False
            bounds.append(self.params.get(key, 0.0) if given is None else float(given.ravel()[0]))
        return bool(bounds[0] <= 0 <= bounds[1])


@describes("RandomNormalLike RandomUniformLike")
class Noise(Elementwise):
    """Random numbers of the input's shape; a shorter input draws other numbers."""


@describes("Dropout Bernoulli")
class Dropout(OperatorNode):
    """The output and the optional mask have the input's shape."""

    def ties(self, ties: Ties) -> None:
        for out in self.out_data:
            tie_broadcast(ties, self.in_data[:1], out)

    def zero_products(self) -> Products | None:
        return ((0,),)
