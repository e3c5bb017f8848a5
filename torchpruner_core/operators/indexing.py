"""Operators that read or write at positions that data gives.

An axis that data addresses cannot be shortened, whatever stands beside it can.
Sources: https://onnx.ai/onnx/operators/onnx__GatherElements.html and the pages beside it.
"""

from __future__ import annotations

import numpy as np

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.elementwise import tie_broadcast
from torchpruner_core.operators.registry import describes

ADDRESSED = "it is addressed by data"
WRITTEN = "its slices are written over others"


@describes("GatherElements")
class GatherElements(OperatorNode):
    """Element by element, but for ``axis``; the indices may cover a first part of the data only."""

    def ties(self, ties: Ties) -> None:
        x, indices, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert x is not None and indices is not None
        axis = int(self.params.get("axis", 0)) % x.rank
        self.opaque_axis(ties, x, axis, ADDRESSED)
        for dim in range(x.rank):
            ties.same(indices.axis(dim), out.axis(dim))
            if dim != axis:
                ties.run(x.axis(dim), 0, out.axis(dim), 0, indices.shape[dim])

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("ScatterElements", "Scatter")
class ScatterElements(OperatorNode):
    """Element by element, but for ``axis``; the updates may cover a first part of the data only."""

    def ties(self, ties: Ties) -> None:
        x, indices, updates, out = *self.in_data[:3], self.out_data[0]
        assert x is not None and indices is not None and updates is not None
        axis = int(self.params.get("axis", 0)) % x.rank
        tie_broadcast(ties, [x], out)
        for dim in range(x.rank):
            ties.same(indices.axis(dim), updates.axis(dim))
            if dim != axis:
                ties.run(x.axis(dim), 0, updates.axis(dim), 0, updates.shape[dim])
        self.opaque_axis(ties, x, axis, ADDRESSED)
        self.opaque_axis(ties, updates, axis, WRITTEN)

    def zero_products(self) -> Products | None:
        return ((0,), (2,))


@describes("GatherND")
class GatherND(OperatorNode):
    """The first axes of the data, after those of the batch, are addressed by tuples of indices."""

    def ties(self, ties: Ties) -> None:
        x, indices, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert x is not None and indices is not None
        batch = int(self.params.get("batch_dims", 0))
        depth = indices.shape[-1]
        for dim in range(indices.rank - 1):
            ties.same(indices.axis(dim), out.axis(dim))
        for dim in range(x.rank):
            if dim < batch:
                ties.same(x.axis(dim), out.axis(dim))
            elif dim < batch + depth:
                self.opaque_axis(ties, x, dim, ADDRESSED)
            else:
                ties.same(x.axis(dim), out.axis(indices.rank - 1 + dim - batch - depth))

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("ScatterND")
class ScatterND(OperatorNode):
    """The first axes of the data are written at tuples of indices; the others pass.

    Constant indices into one axis say which slices are written over: what an assignment to a range
    of channels becomes.
    """

    def ties(self, ties: Ties) -> None:
        x, indices, updates, out = *self.in_data[:3], self.out_data[0]
        assert x is not None and indices is not None and updates is not None
        tie_broadcast(ties, [x], out)
        depth = indices.shape[-1]
        if depth == 1 and self._ties_written_slices(ties, x, indices, updates):
            for dim in range(1, x.rank):
                ties.same(x.axis(dim), updates.axis(indices.rank - 2 + dim))
            return
        for dim in range(indices.rank - 1):
            for node in (indices, updates):
                self.opaque_axis(ties, node, dim, WRITTEN)
        for dim in range(x.rank):
            if dim < depth:
                self.opaque_axis(ties, x, dim, ADDRESSED)
            else:
                ties.same(x.axis(dim), updates.axis(indices.rank - 1 + dim - depth))

    def _ties_written_slices(
        self, ties: Ties, x: DataNode, indices: DataNode, updates: DataNode
    ) -> bool:
        """Tie each update to the slice of the first axis that it replaces, where that is known."""
        known, follows = self.value(1), self.follows(1)
        written = [dim for dim in range(indices.rank - 1) if indices.shape[dim] != 1]
        if known is None or follows is None or follows.any() or len(written) != 1 or not x.shape[0]:
            return False
        values = known.astype(np.int64) % x.shape[0]
        if len(np.unique(values)) != values.size:
            return False
        at = np.arange(values.size, dtype=np.int64)
        ties.pairs(updates.axis(written[0]), at, x.axis(0), values.ravel())
        ties.same(indices.axis(written[0]), updates.axis(written[0]))
        along = [indices.axis(dim) for dim in range(indices.rank)]
        ties.selection("indices", x.axis(0), along, values)
        return True

    def zero_products(self) -> Products | None:
        return ((0,), (2,))


@describes("TensorScatter")
class TensorScatter(OperatorNode):
    """A cache with new entries along ``axis``; the other axes pass."""

    def ties(self, ties: Ties) -> None:
        x, update, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert x is not None and update is not None
        axis = int(self.params.get("axis", -2)) % x.rank
        tie_broadcast(ties, [x], out)
        for dim in range(x.rank):
            if dim != axis:
                ties.same(update.axis(dim), x.axis(dim))
        self.opaque_axis(ties, x, axis, ADDRESSED)
        self.opaque_axis(ties, update, axis, WRITTEN)
        places = self.input(2)
        if places is not None:
            ties.same(places.axis(0), x.axis(0))

    def zero_products(self) -> Products | None:
        return ((0,), (1,))


@describes("OneHot")
class OneHot(OperatorNode):
    """The axis of classes is what the indices count in; the axes of the indices pass."""

    def ties(self, ties: Ties) -> None:
        indices, out = self.in_data[0], self.out_data[0]
        assert indices is not None
        axis = int(self.params.get("axis", -1)) % out.rank
        self.opaque_axis(ties, out, axis, "it counts classes")
        for dim in range(indices.rank):
            ties.same(indices.axis(dim), out.axis(dim + (dim >= axis)))


@describes("Compress")
class Compress(OperatorNode):
    """As a ``Gather`` where the condition is a constant; else its result has no known size."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        condition = self.value(1)
        if condition is None or "axis" not in self.params:
            self.opaque(ties, "which slices are kept depends on data")
            return
        axis = int(self.params["axis"]) % x.rank
        for dim in range(x.rank):
            if dim != axis:
                ties.same(x.axis(dim), out.axis(dim))
        kept = np.flatnonzero(condition).astype(np.int64)
        ties.pairs(out.axis(axis), np.arange(len(kept), dtype=np.int64), x.axis(axis), kept)

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("ReverseSequence")
class ReverseSequence(OperatorNode):
    """Each sequence of the batch is reversed up to its own length."""

    def ties(self, ties: Ties) -> None:
        x, lengths = self.in_data[0], self.in_data[1]
        assert x is not None and lengths is not None
        tie_broadcast(ties, [x], self.out_data[0])
        self.opaque_axis(ties, x, int(self.params.get("time_axis", 0)) % x.rank, "it is reversed")
        ties.same(lengths.axis(0), x.axis(int(self.params.get("batch_axis", 1)) % x.rank))

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("Trilu")
class Triangle(OperatorNode):
    """A triangle of the last two axes, which count rows against columns; the others pass."""

    def ties(self, ties: Ties) -> None:
        x = self.in_data[0]
        assert x is not None
        tie_broadcast(ties, [x], self.out_data[0])
        for dim in (-2, -1):
            self.opaque_axis(ties, x, dim, "rows are counted against columns")

    def zero_products(self) -> Products | None:
        return ((0,),)
