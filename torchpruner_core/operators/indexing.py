"""Operators that read or write at positions that an operand gives.

Constant positions say which slices are read or written. An axis that data addresses cannot be
shortened, whatever stands beside it can.
Sources: https://onnx.ai/onnx/operators/onnx__GatherElements.html and the pages beside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.elementwise import tie_broadcast
from torchpruner_core.operators.registry import describes

Int = NDArray[np.int64]

ADDRESSED = "it is addressed by data"
WRITTEN = "its slices are written over others"


def positions(operator: OperatorNode, operand: int, size: int) -> Int | None:
    """Return an operand's constant indices into an axis of ``size``, as they are stored.

    ``None`` where only running the model tells them, where they follow from the sizes of other
    tensors, or where one is outside the axis.
    """
    known, follows = operator.value(operand), operator.follows(operand)
    if known is None or known.dtype.kind not in "iu" or size < 1:
        return None
    values = known.astype(np.int64)
    if follows is not None and follows.any():
        return None
    return values if ((values >= -size) & (values < size)).all() else None


def _line(values: Int, axis: int) -> Int | None:
    """Return the entries along ``axis`` if they are the same wherever else one stands."""
    line = values[tuple(slice(None) if dim == axis else 0 for dim in range(values.ndim))]
    shape = [-1 if dim == axis else 1 for dim in range(values.ndim)]
    return line if bool((values == line.reshape(shape)).all()) else None


def _are_distinct(line: Int, size: int) -> bool:
    return len(np.unique(line % size)) == len(line)


@describes("GatherElements")
class GatherElements(OperatorNode):
    """Element by element, but for ``axis``; the indices may cover a first part of the data only.

    Constant indices that are the same for every position pick slices, as a ``Gather`` does.
    """

    def ties(self, ties: Ties) -> None:
        x, indices, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert x is not None and indices is not None
        axis = int(self.params.get("axis", 0)) % x.rank
        for dim in range(x.rank):
            ties.same(indices.axis(dim), out.axis(dim))
            if dim != axis:
                ties.run(x.axis(dim), 0, out.axis(dim), 0, indices.shape[dim])
        known = positions(self, 1, x.shape[axis])
        line = None if known is None or not known.size else _line(known, axis)
        if line is None:
            self.opaque_axis(ties, x, axis, ADDRESSED)
            return
        at = np.arange(len(line), dtype=np.int64)
        ties.pairs(out.axis(axis), at, x.axis(axis), line % x.shape[axis])
        along = [indices.axis(axis)]
        ties.selection("indices", x.axis(axis), along, line, self.stored_in(1))

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("ScatterElements", "Scatter")
class ScatterElements(OperatorNode):
    """Element by element, but for ``axis``; the updates may cover a first part of the data only.

    Constant indices that are the same for every position say which slices are written.
    """

    def ties(self, ties: Ties) -> None:
        x, indices, updates, out = *self.in_data[:3], self.out_data[0]
        assert x is not None and indices is not None and updates is not None
        axis = int(self.params.get("axis", 0)) % x.rank
        tie_broadcast(ties, [x], out)
        for dim in range(x.rank):
            ties.same(indices.axis(dim), updates.axis(dim))
            if dim != axis:
                ties.run(x.axis(dim), 0, updates.axis(dim), 0, updates.shape[dim])
        known = positions(self, 1, x.shape[axis])
        line = None if known is None or not known.size else _line(known, axis)
        if line is None or not (_adds(self) or _are_distinct(line, x.shape[axis])):
            self.opaque_axis(ties, x, axis, ADDRESSED)
            self.opaque_axis(ties, updates, axis, WRITTEN)
            return
        at = np.arange(len(line), dtype=np.int64)
        ties.pairs(updates.axis(axis), at, x.axis(axis), line % x.shape[axis])
        along = [indices.axis(axis)]
        ties.selection("indices", x.axis(axis), along, line, self.stored_in(1))

    def zero_products(self) -> Products | None:
        return ((0,), (2,))


def _adds(operator: OperatorNode) -> bool:
    """Tell whether what is written is combined with what is there, so that places may repeat."""
    return str(operator.params.get("reduction", "none")) not in ("none", "")


@describes("GatherND")
class GatherND(OperatorNode):
    """The first axes of the data, after those of the batch, are addressed by tuples of indices.

    Constant indices into one axis pick slices of it, as a ``Gather`` does.
    """

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
            elif dim >= batch + depth:
                ties.same(x.axis(dim), out.axis(indices.rank - 1 + dim - batch - depth))
        if depth == 1 and batch == 0 and pick(self, ties, x, 0, indices, out, 0):
            return
        for dim in range(batch, min(batch + depth, x.rank)):
            self.opaque_axis(ties, x, dim, ADDRESSED)

    def zero_products(self) -> Products | None:
        return ((0,),)


def pick(
    operator: OperatorNode,
    ties: Ties,
    x: DataNode,
    axis: int,
    indices: DataNode,
    out: DataNode,
    first: int,
) -> bool:
    """Tie what constant indices (input 1) pick along ``axis`` to ``out``'s axes from ``first`` on.

    Returns whether they are constant. A table of indices, of several axes, freezes ``axis``.
    """
    values = positions(operator, 1, x.shape[axis])
    if values is None:
        return False
    line = values.ravel() % x.shape[axis]
    long = [dim for dim, size in enumerate(indices.shape) if size != 1]
    if len(long) > 1:
        operator.opaque_axis(ties, x, axis, "it is addressed by a table of indices")
        return True
    if long:
        at = np.arange(len(line), dtype=np.int64)
        ties.pairs(out.axis(first + long[0]), at, x.axis(axis), line)
    else:
        ties.opaque_at(x.axis(axis), line, f"one slice of it is read apart ({operator.name})")
    along = [indices.axis(dim) for dim in range(indices.rank)]
    ties.selection("indices", x.axis(axis), along, values, operator.stored_in(1))
    return True


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
        values = positions(self, 1, x.shape[0])
        written = [dim for dim in range(indices.rank - 1) if indices.shape[dim] != 1]
        if values is None or len(written) > 1 or indices.rank < 2:
            return False
        line = values.ravel() % x.shape[0]
        if not (_adds(self) or _are_distinct(line, x.shape[0])):
            return False
        if written:
            at = np.arange(len(line), dtype=np.int64)
            ties.pairs(updates.axis(written[0]), at, x.axis(0), line)
            ties.same(indices.axis(written[0]), updates.axis(written[0]))
        else:
            ties.opaque_at(x.axis(0), line, f"one slice of it is written apart ({self.name})")
        along = [indices.axis(dim) for dim in range(indices.rank)]
        ties.selection("indices", x.axis(0), along, values, self.stored_in(1))
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
