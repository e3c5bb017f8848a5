"""Operators over windows or positions of spatial axes; batch and channels pass through.

Sources: https://onnx.ai/onnx/operators/onnx__AveragePool.html and the pages beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.registry import describes


@describes("AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
class Pool(OperatorNode):
    """Batch and channel axes pass; spatial axes cannot be shortened."""

    def ties(self, ties: Ties) -> None:
        self._tie_pooled(ties, [self.in_data[0], *self.out_data])

    def _tie_pooled(self, ties: Ties, nodes: Sequence[DataNode | None]) -> None:
        first, *others = (node for node in nodes if node is not None)
        for node in others:
            ties.same(node.axis(0), first.axis(0))
            ties.same(node.axis(1), first.axis(1))
        for node in (first, *others):
            for dim in range(2, node.rank):
                self.opaque_axis(ties, node, dim, "it is pooled over")

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("MaxPool")
class MaxPool(Pool):
    """The indices count through the whole tensor: only a ``MaxUnpool`` can follow when they shift."""

    def ties(self, ties: Ties) -> None:
        super().ties(ties)
        indices = self.output(1)
        if indices is not None and (
            indices.is_output() or any(user.type != "MaxUnpool" for user in indices.out_operators)
        ):
            self.opaque(ties, "indices count through it", [indices])


@describes("MaxUnpool")
class MaxUnpool(Pool):
    """Puts what was pooled back at the indices of the ``MaxPool`` before it."""

    def ties(self, ties: Ties) -> None:
        x, indices, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert indices is not None
        self._tie_pooled(ties, [x, indices, out])
        producer = indices.in_operator
        pools = producer is not None and producer.type == "MaxPool"
        pooled = producer.in_data[0] if producer is not None and pools else None
        if pooled is None or pooled.shape != out.shape:
            self.opaque(ties, "indices count through it", [indices])
        sizes, follows = self.integers(2), self.follows(2)
        if sizes and follows is not None:
            for dim in (0, 1):
                if not follows[dim]:
                    ties.change("output_shape", out.axis(dim), dim, len(sizes))
