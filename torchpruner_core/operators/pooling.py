"""Operators over windows or positions of spatial axes; batch and channels pass through.

Sources: https://onnx.ai/onnx/operators/onnx__AveragePool.html and the pages beside it.
"""

from __future__ import annotations

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.registry import describes


@describes("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
class Pool(OperatorNode):
    """Batch and channel axes pass; spatial axes cannot be shortened."""

    def ties(self, ties: Ties) -> None:
        x = self.in_data[0]
        assert x is not None
        for out in self.out_data:
            ties.same(x.axis(0), out.axis(0))
            ties.same(x.axis(1), out.axis(1))
        for node in (x, *self.out_data):
            for dim in range(2, node.rank):
                self.opaque_axis(ties, node, dim, "it is pooled over")


@describes("Resize", "Upsample")
class Resize(OperatorNode):
    """Axes that keep their size pass; resized axes cannot be shortened."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        sizes, adapts = self.integers(3), self.adapts(3)
        axes = self.params.get("axes") or list(range(x.rank))
        for dim in range(x.rank):
            if x.shape[dim] != out.shape[dim]:
                for node in (x, out):
                    self.opaque_axis(ties, node, dim, "it is resized")
                continue
            ties.same(x.axis(dim), out.axis(dim))
            if sizes and dim in axes and adapts is not None:
                position = axes.index(dim)
                if not adapts[position]:
                    ties.change("sizes", out.axis(dim), position, len(sizes))


@describes("GridSample")
class GridSample(OperatorNode):
    """Batch and channels pass; sampled positions cannot be shortened."""

    def ties(self, ties: Ties) -> None:
        x, grid, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert x is not None and grid is not None
        ties.same(x.axis(0), out.axis(0))
        ties.same(grid.axis(0), out.axis(0))
        ties.same(x.axis(1), out.axis(1))
        for node, first in ((x, 2), (out, 2), (grid, 1)):
            for dim in range(first, node.rank):
                self.opaque_axis(ties, node, dim, "it is sampled at positions")


@describes("RoiAlign", "MaxRoiPool")
class RegionPool(OperatorNode):
    """Channels pass; regions and positions cannot be shortened."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        ties.same(x.axis(1), out.axis(1))
        for node in (*self.in_data, out):
            if node is None:
                continue
            for dim in range(node.rank):
                if not (node in (x, out) and dim == 1):
                    self.opaque_axis(ties, node, dim, "regions are pooled over it")
