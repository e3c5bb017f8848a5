"""Operators that select or join slices: ``Concat``, ``Split``, ``Slice``, ``Gather``.

Sources: https://onnx.ai/onnx/operators/onnx__Concat.html and the pages beside it.
"""

from __future__ import annotations

import numpy as np

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.indexing import ADDRESSED, pick
from torchpruner_core.operators.registry import describes


@describes("Concat")
class Concat(OperatorNode):
    """The inputs follow one another along ``axis``; the other axes are shared."""

    def ties(self, ties: Ties) -> None:
        out = self.out_data[0]
        axis = int(self.params["axis"]) % out.rank
        start = 0
        others = [dim for dim in range(out.rank) if dim != axis]
        for node in self.in_data:
            if node is None:
                continue
            for dim in others:
                ties.same(node.first_axis + dim, out.first_axis + dim)
            if node.shape[axis] < 0 or out.shape[axis] < 0:
                for side in (node, out):
                    self.opaque_axis(
                        ties, side, axis, "its size is not known before the model runs"
                    )
                continue
            ties.run(node.axis(axis), 0, out.axis(axis), start, node.shape[axis])
            start += node.shape[axis]

    def zero_products(self) -> Products | None:
        return tuple((k,) for k in range(len(self.in_data)))


@describes("Split")
class Split(OperatorNode):
    """The outputs follow one another along ``axis``; the other axes are shared."""

    outputs_alike = True

    def ties(self, ties: Ties) -> None:
        x = self.in_data[0]
        assert x is not None
        axis = int(self.params.get("axis", 0)) % x.rank
        if x.shape[axis] < 0 or any(out.shape[axis] < 0 for out in self.out_data):
            self.opaque(ties, "its size is not known before the model runs", [x, *self.out_data])
            return
        follows = self.follows(1)
        start = 0
        for position, out in enumerate(self.out_data):
            for dim in range(x.rank):
                if dim != axis:
                    ties.same(x.axis(dim), out.axis(dim))
            ties.run(out.axis(axis), 0, x.axis(axis), start, out.shape[axis])
            if follows is None or not follows.ravel()[position : position + 1].any():
                ties.change(
                    "split",
                    x.axis(axis),
                    position,
                    len(self.out_data),
                    start,
                    start + out.shape[axis],
                )
            start += out.shape[axis]

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("Slice")
class Slice(OperatorNode):
    """A range of each axis; a range with a step reads one of several interleaved axes."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        starts, ends = self.integers(1, "starts"), self.integers(2, "ends")
        if starts is None or ends is None or -1 in x.shape or -1 in out.shape:
            self.opaque(ties, "which part is taken is not known before the model runs", [x, out])
            return
        axes = self.integers(3, "axes") or list(range(len(starts)))
        steps = self.integers(4) or [1] * len(starts)
        sliced = {axis % x.rank for axis in axes}
        for dim in set(range(x.rank)) - sliced:
            ties.same(x.axis(dim), out.axis(dim))
        for position, axis in enumerate(axes):
            dim = axis % x.rank
            start, stop, step = slice(starts[position], ends[position], steps[position]).indices(
                x.shape[dim]
            )
            if steps[position] < 0 and ends[position] < -x.shape[dim]:
                stop = -1
            self._tie_range(ties, x, out, dim, range(start, stop, step))
            if step == 1 and out.shape[dim] != x.shape[dim]:
                self._declare(ties, x, dim, position, 1, "starts", starts)
                self._declare(ties, x, dim, position, 2, "ends", ends)

    def _tie_range(self, ties: Ties, x: DataNode, out: DataNode, dim: int, taken: range) -> None:
        size = x.shape[dim]
        if taken.step == 1:
            ties.run(out.axis(dim), 0, x.axis(dim), taken.start, out.shape[dim])
        elif taken.step == -1 and len(taken) == size:
            forward = np.arange(size, dtype=np.int64)
            ties.pairs(out.axis(dim), forward, x.axis(dim), forward[::-1].copy())
        elif taken.step > 1 and size % taken.step == 0 and len(taken) * taken.step == size:
            phase = ties.new_axis(taken.step)
            ties.opaque(phase, f"every {taken.step}-th slice is read apart ({self.name})")
            ties.view(x.axis(dim), [out.axis(dim), phase])
            ties.source(out.axis(dim))
        else:
            for node in (x, out):
                self.opaque_axis(ties, node, dim, "slices of it are read with a step")

    def _declare(
        self,
        ties: Ties,
        x: DataNode,
        dim: int,
        position: int,
        operand: int,
        key: str,
        bounds: list[int],
    ) -> None:
        """Declare that a literal bound counts the slices before it, or behind it when negative."""
        follows = self.follows(operand)
        if follows is not None and follows.ravel()[position]:
            return
        bound, size = bounds[position], x.shape[dim]
        if 0 < bound <= size:
            ties.change(key, x.axis(dim), position, len(bounds), 0, bound)
        elif -size < bound < 0:
            ties.change(key, x.axis(dim), position, len(bounds), size + bound, size, sign=-1)

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("Gather")
class Gather(OperatorNode):
    """Slices of ``axis`` at constant indices; at computed ones the axis is addressed by data."""

    def ties(self, ties: Ties) -> None:
        x, indices, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert x is not None and indices is not None
        axis = int(self.params.get("axis", 0)) % x.rank
        for dim in range(axis):
            ties.same(x.axis(dim), out.axis(dim))
        for dim in range(axis + 1, x.rank):
            ties.same(x.axis(dim), out.axis(dim - 1 + indices.rank))
        for dim in range(indices.rank):
            ties.same(indices.axis(dim), out.axis(axis + dim))
        if not pick(self, ties, x, axis, indices, out, axis):
            self._pick_by_sizes(ties, x, axis, indices, out)

    def _pick_by_sizes(
        self, ties: Ties, x: DataNode, axis: int, indices: DataNode, out: DataNode
    ) -> None:
        """Tie what indices pick that the program computes from sizes, and that follow by themselves."""
        known = self.value(1)
        long = [dim for dim, size in enumerate(indices.shape) if size != 1]
        if known is None or x.shape[axis] < 1 or len(long) > 1:
            self.opaque_axis(ties, x, axis, ADDRESSED)
            return
        line = known.astype(np.int64).ravel() % x.shape[axis]
        if long:
            at = np.arange(len(line), dtype=np.int64)
            ties.pairs(out.axis(axis + long[0]), at, x.axis(axis), line)
        else:
            ties.opaque_at(x.axis(axis), line, f"one slice of it is read apart ({self.name})")

    def zero_products(self) -> Products | None:
        return ((0,),)
