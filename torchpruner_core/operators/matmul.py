"""Matrix products: ``MatMul``, ``Gemm``, ``Einsum`` and their quantised forms.

Sources: https://onnx.ai/onnx/operators/onnx__MatMul.html, onnx__Gemm.html, onnx__Einsum.html
"""

from __future__ import annotations

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.elementwise import tie_broadcast
from torchpruner_core.operators.registry import describes


def tie_matmul(ties: Ties, a: DataNode, b: DataNode, out: DataNode) -> None:
    """Tie ``out = a @ b`` as numpy's ``matmul`` reads it, vectors included, and add its cost."""
    contracted = a.axis(-1), b.axis(-2 if b.rank > 1 else 0)
    ties.same(*contracted)
    columns = b.rank > 1
    if columns:
        ties.same(b.axis(-1), out.axis(-1))
    if a.rank > 1:
        ties.same(a.axis(-2), out.axis(-2 if columns else -1))
    batch = out.rank - (a.rank > 1) - columns
    for operand in (a, b):
        for dim in range(operand.rank - 2):
            target = batch - (operand.rank - 2) + dim
            if operand.shape[dim] != 1 or out.shape[target] == 1:
                ties.same(operand.axis(dim), out.axis(target))
    ties.cost(2, [*(out.axis(dim) for dim in range(out.rank)), contracted[0]])


@describes("MatMul")
class MatMul(OperatorNode):
    """The last axis of ``A`` is the second last of ``B``; batch axes broadcast."""

    def ties(self, ties: Ties) -> None:
        a, b = self.in_data[0], self.in_data[1]
        assert a is not None and b is not None
        tie_matmul(ties, a, b, self.out_data[0])


@describes("MatMulInteger")
class MatMulInteger(MatMul):
    """As ``MatMul``; the zero points are a scalar, or one a row of ``A`` and a column of ``B``."""

    def ties(self, ties: Ties) -> None:
        super().ties(ties)
        _tie_row_parameters(self, ties, 2, self.in_data[0], -2)
        _tie_row_parameters(self, ties, 3, self.in_data[1], -1)


@describes("QLinearMatMul")
class QLinearMatMul(OperatorNode):
    """As ``MatMul`` of ``a`` and ``b``; scales and zero points are scalars, or one a row or column."""

    def ties(self, ties: Ties) -> None:
        a, b, out = self.in_data[0], self.in_data[3], self.out_data[0]
        assert a is not None and b is not None
        tie_matmul(ties, a, b, out)
        for positions, operand, dim in (((1, 2), a, -2), ((4, 5), b, -1), ((6, 7), out, -2)):
            for position in positions:
                _tie_row_parameters(self, ties, position, operand, dim)


def _tie_row_parameters(
    operator: OperatorNode, ties: Ties, position: int, operand: DataNode | None, dim: int
) -> None:
    given = operator.input(position)
    if given is None or operand is None or given.rank == 0 or operand.rank < 2:
        return
    where = -1 if given.rank == 1 else dim
    if given.shape[where] == operand.shape[dim]:
        ties.same(given.axis(where), operand.axis(dim))


@describes("Gemm")
class Gemm(OperatorNode):
    """``Y = alpha * A' @ B' + beta * C`` with optional transposes; ``C`` broadcasts to ``Y``."""

    def ties(self, ties: Ties) -> None:
        a, b, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert a is not None and b is not None
        rows, inner = (1, 0) if self.params.get("transA") else (0, 1)
        inner_b, columns = (1, 0) if self.params.get("transB") else (0, 1)
        ties.same(a.axis(inner), b.axis(inner_b))
        ties.same(a.axis(rows), out.axis(0))
        ties.same(b.axis(columns), out.axis(1))
        tie_broadcast(ties, [self.input(2)], out)
        ties.cost(2, [out.axis(0), out.axis(1), a.axis(inner)])


@describes("Einsum")
class Einsum(OperatorNode):
    """Axes that share a letter are one axis; an ellipsis stands for broadcast axes."""

    def ties(self, ties: Ties) -> None:
        equation = str(self.params["equation"]).replace(" ", "")
        left, arrow, right = equation.partition("->")
        terms = left.split(",")
        if not arrow:
            letters = "".join(terms).replace(".", "")
            right = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
            right = f"...{right}" if "..." in left else right
        owner: dict[str, int] = {}
        out = self.out_data[0]
        for term, node in [(right, out), *zip(terms, self.in_data, strict=True)]:
            assert node is not None
            for dim, letter in enumerate(_letters(term, node.rank)):
                axis = node.axis(dim)
                if letter not in owner or (ties.lengths[owner[letter]] == 1 and node.shape[dim] != 1):
                    owner[letter] = axis
                elif node.shape[dim] != 1 or ties.lengths[owner[letter]] == 1:
                    ties.same(owner[letter], axis)
        if len(terms) == 2:
            ties.cost(2, list(owner.values()))


def _letters(term: str, rank: int) -> list[str]:
    """Return a name for each axis; axes under an ellipsis are numbered from the right."""
    before, dots, after = term.partition("...")
    if not dots:
        return list(term)
    hidden = rank - len(before) - len(after)
    return [*before, *(f"...{hidden - k}" for k in range(hidden)), *after]
