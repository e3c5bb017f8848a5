"""Operators that move spatial positions: resizing, sampling, cropping and folding.

Sources: https://onnx.ai/onnx/operators/onnx__Resize.html and the pages beside it.
"""

from __future__ import annotations

from math import prod

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.registry import describes


@describes("Resize", "Upsample")
class Resize(OperatorNode):
    """Axes that keep their size pass; resized axes cannot be shortened."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        sizes, follows = self.integers(3), self.follows(3)
        axes = [int(axis) % x.rank for axis in self.params.get("axes") or range(x.rank)]
        for dim in range(x.rank):
            if x.shape[dim] != out.shape[dim] or not self._keeps(dim, axes):
                for node in (x, out):
                    self.opaque_axis(ties, node, dim, "it is resized")
                continue
            ties.same(x.axis(dim), out.axis(dim))
            if sizes and dim in axes and follows is not None:
                position = axes.index(dim)
                if not follows[position]:
                    ties.change("sizes", out.axis(dim), position, len(sizes))

    def _keeps(self, dim: int, axes: list[int]) -> bool:
        """Return whether an axis whose size stays is left alone: 3 by 1.3 is resampled to 3."""
        if dim not in axes or self.input(3) is not None:
            return True
        old = self.type == "Upsample" or self.opset < 11
        scales = self.params.get("scales", self.value(1 if old else 2))
        return scales is None or float(scales[axes.index(dim)]) == 1.0

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("CenterCropPad")
class CenterCropPad(OperatorNode):
    """Axes that keep their size pass; cropped and padded ones cannot be shortened."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        sizes, follows = self.integers(1), self.follows(1)
        axes = [int(axis) % x.rank for axis in self.params.get("axes") or range(x.rank)]
        for dim in range(x.rank):
            if x.shape[dim] != out.shape[dim] or (dim in axes and sizes is None):
                for node in (x, out):
                    self.opaque_axis(ties, node, dim, "it is cropped or padded around its centre")
                continue
            ties.same(x.axis(dim), out.axis(dim))
            if sizes and dim in axes and follows is not None:
                position = axes.index(dim)
                if not follows[position]:
                    ties.change("shape", out.axis(dim), position, len(sizes))

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("Col2Im")
class Fold(OperatorNode):
    """Columns of channels by block positions, summed back into an image."""

    def ties(self, ties: Ties) -> None:
        x, out, block = self.in_data[0], self.out_data[0], self.integers(2)
        assert x is not None
        ties.same(x.axis(0), out.axis(0))
        if block is None:
            self.opaque(ties, "its block is not known before the model runs", [x, out])
            return
        positions = ties.new_axis(prod(block))
        if prod(block) > 1:
            ties.opaque(positions, f"it becomes positions ({self.name})")
        ties.view(x.axis(1), [out.axis(1), positions])
        for node in (x, out):
            for dim in range(2, node.rank):
                self.opaque_axis(ties, node, dim, "it holds positions of an image")

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("AffineGrid")
class AffineGrid(OperatorNode):
    """One grid a matrix of the batch; coordinates and positions stay."""

    def ties(self, ties: Ties) -> None:
        theta, out = self.in_data[0], self.out_data[0]
        assert theta is not None
        ties.same(theta.axis(0), out.axis(0))
        sizes, follows = self.integers(1), self.follows(1)
        if sizes is None or follows is None or not follows[0]:
            ties.change("size", out.axis(0), 0, len(sizes or [0]))
        for node in (theta, out):
            for dim in range(1, node.rank):
                self.opaque_axis(ties, node, dim, "it holds coordinates")


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

    def zero_products(self) -> Products | None:
        return ((0,),)


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

    def zero_products(self) -> Products | None:
        return ((0,),)
