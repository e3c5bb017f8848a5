"""``Pad``: constants around an axis, or slices cut off it where the amount is negative.

Source: https://onnx.ai/onnx/operators/onnx__Pad.html
"""

from __future__ import annotations

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.registry import describes


@describes("Pad")
class Pad(OperatorNode):
    """Kept slices are shifted; padded slices belong to the consumer alone and can go with it."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        pads = self.integers(1, "pads")
        if pads is None or -1 in x.shape or -1 in out.shape:
            self.opaque(ties, "how much it is padded is not known before the model runs", [x, out])
            return
        axes = self.integers(3) or list(range(x.rank))
        amounts = {axis % x.rank: (pads[k], pads[len(axes) + k], k) for k, axis in enumerate(axes)}
        for dim in range(x.rank):
            before, after, position = amounts.get(dim, (0, 0, 0))
            if before == after == 0:
                ties.same(x.axis(dim), out.axis(dim))
            elif self.params.get("mode", "constant") != "constant":
                for node in (x, out):
                    self.opaque_axis(ties, node, dim, "it is padded with its own slices")
            else:
                self._tie_padded(ties, x, out, dim, before, after)
                self._declare(ties, x, out, dim, before, position, len(pads))
                self._declare(ties, x, out, dim, after, len(axes) + position, len(pads), end=True)

    def zero_products(self) -> Products | None:
        given = self.input(2)
        value = self.value(2) if given is not None else self.params.get("value", 0.0)
        repeats = self.params.get("mode", "constant") != "constant"
        return ((0,),) if repeats or (value is not None and float(value) == 0.0) else None

    def _tie_padded(
        self, ties: Ties, x: DataNode, out: DataNode, dim: int, before: int, after: int
    ) -> None:
        first, start = max(-before, 0), max(before, 0)
        kept = x.shape[dim] - first - max(-after, 0)
        ties.run(out.axis(dim), start, x.axis(dim), first, kept)
        ties.source(out.axis(dim))

    def _declare(
        self,
        ties: Ties,
        x: DataNode,
        out: DataNode,
        dim: int,
        amount: int,
        position: int,
        length: int,
        end: bool = False,
    ) -> None:
        """Declare that an amount counts padded slices of the output, or cut-off ones of the input."""
        node, sign = (out, 1) if amount > 0 else (x, -1)
        size = node.shape[dim]
        low, high = (size - abs(amount), size) if end else (0, abs(amount))
        if amount:
            ties.change("pads", node.axis(dim), position, length, low, high, sign=sign)
