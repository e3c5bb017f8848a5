"""Matrix products: ``MatMul``, ``Gemm``, ``Einsum``.

Sources: https://onnx.ai/onnx/operators/onnx__MatMul.html, onnx__Gemm.html, onnx__Einsum.html
"""

from __future__ import annotations

from torchpruner_core.coupling.ties import Axis, Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.elementwise import tie_broadcast
from torchpruner_core.operators.registry import describes


def tie_matmul(ties: Ties, a: DataNode, b: DataNode, out: DataNode) -> None:
    """Tie ``out = a @ b`` as numpy's ``matmul`` reads it, vectors included, and add its cost."""
    contracted = a.axis(-1), b.axis(-2 if b.rank > 1 else 0)
    ties.same(*contracted)
    ties.contracts(*contracted)
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

    def zero_products(self) -> Products | None:
        return ((0, 1),)


@describes("Gemm")
class Gemm(OperatorNode):
    """``Y = alpha * A' @ B' + beta * C`` with optional transposes; ``C`` broadcasts to ``Y``."""

    def ties(self, ties: Ties) -> None:
        a, b, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert a is not None and b is not None
        rows, inner = (1, 0) if self.params.get("transA") else (0, 1)
        inner_b, columns = (1, 0) if self.params.get("transB") else (0, 1)
        ties.same(a.axis(inner), b.axis(inner_b))
        ties.contracts(a.axis(inner), b.axis(inner_b))
        ties.same(a.axis(rows), out.axis(0))
        ties.same(b.axis(columns), out.axis(1))
        tie_broadcast(ties, [self.input(2)], out)
        ties.cost(2, [out.axis(0), out.axis(1), a.axis(inner)])

    def zero_products(self) -> Products | None:
        return ((0, 1), (2,))


@describes("Einsum")
class Einsum(OperatorNode):
    """Axes that share a letter are one axis; an ellipsis stands for broadcast axes."""

    def ties(self, ties: Ties) -> None:
        left, right = _equation(str(self.params["equation"]))
        out = self.out_data[0]
        terms: list[dict[str, Axis]] = []
        owner: dict[str, Axis] = {}
        for term, node in [(right, out), *zip(left, self.in_data, strict=True)]:
            assert node is not None
            terms.append({})
            for dim, letter in enumerate(_letters(term, node.rank)):
                axis = node.axis(dim)
                terms[-1][letter] = axis
                if letter not in owner or (
                    ties.lengths[owner[letter]] == 1 and node.shape[dim] != 1
                ):
                    owner[letter] = axis
                elif node.shape[dim] != 1 or ties.lengths[owner[letter]] == 1:
                    ties.same(owner[letter], axis)
        result, *operands = terms
        for letter in owner.keys() - result.keys():
            ties.contracts(*(term[letter] for term in operands if letter in term))
        self._add_cost(ties, result, operands, owner)

    def _add_cost(
        self,
        ties: Ties,
        result: dict[str, Axis],
        operands: list[dict[str, Axis]],
        owner: dict[str, Axis],
    ) -> None:
        """Count operands combined two by two from the left, as PyTorch does by default."""
        held = set(operands[0])
        for k in range(1, len(operands)):
            held |= operands[k].keys()
            ties.cost(2, [axis for letter, axis in owner.items() if letter in held])
            held &= result.keys() | {letter for later in operands[k + 1 :] for letter in later}

    def zero_products(self) -> Products | None:
        return (tuple(range(len(self.in_data))),)


def _equation(text: str) -> tuple[list[str], str]:
    """Return the terms on the left and the one on the right, made up where it is left out."""
    left, arrow, right = text.replace(" ", "").partition("->")
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        right = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
        right = f"...{right}" if "..." in left else right
    return left.split(","), right


def _letters(term: str, rank: int) -> list[str]:
    """Return a name for each axis; axes under an ellipsis are numbered from the right."""
    before, dots, after = term.partition("...")
    if not dots:
        return list(term)
    hidden = rank - len(before) - len(after)
    return [*before, *(f"...{hidden - k}" for k in range(hidden)), *after]
