"""Operators that rearrange: reshapes, transposes, expansions and shuffles between axes.

A reshape keeps the row-major order of elements. Where the boundaries of input and output axes
nest, both are products of common factors; where they do not, no rule can shorten the axes.
Sources: https://onnx.ai/onnx/operators/onnx__Reshape.html and the pages beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod

from torchpruner_core.coupling.ties import Axis, Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.graph.values import tensor_value
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.registry import describes

Sized = list[tuple[int, int]]
"""``(dim, size)`` of the axes longer than one."""


def blocks(x: Sequence[int], y: Sequence[int]) -> Iterator[tuple[Sized, Sized]]:
    """Yield runs of axes of two shapes with equal products, as short as they can be.

    >>> list(blocks((2, 12, 5), (2, 3, 4, 5)))
    [([(0, 2)], [(0, 2)]), ([(1, 12)], [(1, 3), (2, 4)]), ([(2, 5)], [(3, 5)])]
    """
    left = [(dim, size) for dim, size in enumerate(x) if size != 1]
    right = [(dim, size) for dim, size in enumerate(y) if size != 1]
    i = j = 0
    while i < len(left) and j < len(right):
        i0, j0, a, b = i, j, left[i][1], right[j][1]
        while a != b:
            if a < b:
                i += 1
                a *= left[i][1]
            else:
                j += 1
                b *= right[j][1]
        i, j = i + 1, j + 1
        yield left[i0:i], right[j0:j]


def tie_reshape(operator: OperatorNode, ties: Ties, x: DataNode, y: DataNode) -> None:
    """Tie the axes of ``x`` to those of ``y``, a view of the same elements in the same order."""
    before, after = _with_one_unknown(x.shape), _with_one_unknown(y.shape)
    if before is None or after is None or prod(before) != prod(after):
        operator.opaque(ties, "its size is not known before the model runs", [x, y])
        return
    for ins, outs in blocks(before, after):
        if len(ins) == len(outs) == 1:
            ties.same(x.axis(ins[0][0]), y.axis(outs[0][0]))
            continue
        if any(size == STAND_IN for _, size in (*ins, *outs)):
            for node, dims in ((x, ins), (y, outs)):
                for dim, _ in dims:
                    operator.opaque_axis(
                        ties, node, dim, "it is mixed with an axis of unknown size"
                    )
            continue
        _tie_block(operator, ties, x, ins, y, outs)


STAND_IN = 2_147_483_647
"""A prime that stands for a size that only running the model tells."""


def _with_one_unknown(shape: Sequence[int]) -> list[int] | None:
    """Return a shape whose one unknown size has a stand-in; two are one too many.

    Where the known sizes of two shapes of the same elements agree, so do the unknown ones.
    """
    if sum(size < 0 for size in shape) > 1 or 0 in shape:
        return None
    return [STAND_IN if size < 0 else size for size in shape]


def _tie_block(
    operator: OperatorNode, ties: Ties, x: DataNode, ins: Sized, y: DataNode, outs: Sized
) -> None:
    edges_in, edges_out = _edges(ins), _edges(outs)
    edges = sorted({*edges_in, *edges_out})
    if any(b % a for a, b in pairwise(edges)):
        for node, dims in ((x, ins), (y, outs)):
            for dim, _ in dims:
                operator.opaque_axis(ties, node, dim, "a reshape mixes it with its neighbours")
        return
    factors: list[Axis] = []
    spans_in, spans_out = _spans(edges_in, edges), _spans(edges_out, edges)
    whole = {
        span[0]: x.axis(dim) for span, (dim, _) in zip(spans_in, ins, strict=True) if len(span) == 1
    }
    shown = {
        span[0]: y.axis(dim)
        for span, (dim, _) in zip(spans_out, outs, strict=True)
        if len(span) == 1
    }
    for k in range(len(edges) - 1):
        axis = whole.get(k, shown.get(k))
        factors.append(ties.new_axis(edges[k + 1] // edges[k]) if axis is None else axis)
        if k in whole and k in shown:
            ties.same(whole[k], shown[k])
    for span, (dim, _) in zip(spans_in, ins, strict=True):
        if len(span) > 1:
            ties.view(x.axis(dim), [factors[k] for k in span])
            for k in span:
                ties.source(factors[k])
    for span, (dim, _) in zip(spans_out, outs, strict=True):
        if len(span) > 1:
            ties.view(y.axis(dim), [factors[k] for k in span])


def _edges(dims: Sized) -> list[int]:
    edges = [1]
    for _, size in dims:
        edges.append(edges[-1] * size)
    return edges


def _spans(own: Sequence[int], edges: Sequence[int]) -> list[list[int]]:
    """Return, for each axis with the boundaries ``own``, the factors that make it up."""
    return [
        [k for k in range(len(edges) - 1) if low <= edges[k] < high] for low, high in pairwise(own)
    ]


def declare_sizes(
    operator: OperatorNode, ties: Ties, position: int, key: str, node: DataNode, first_dim: int = 0
) -> None:
    """Declare which entries of a shape constant are literal sizes of ``node``'s axes."""
    sizes, follows = operator.integers(position, key), operator.follows(position)
    for k, size in enumerate(sizes or ()):
        dim = first_dim + k
        literal = follows is None or not follows.ravel()[k]
        if literal and size > 1 and 0 <= dim < node.rank and size == node.shape[dim]:
            ties.change(key, node.axis(dim), k, len(sizes or ()))


@describes("Reshape")
class Reshape(OperatorNode):
    """The same elements under another shape."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        tie_reshape(self, ties, x, out)
        declare_sizes(self, ties, 1, "shape", out)

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("Flatten")
class Flatten(OperatorNode):
    """Axes before ``axis`` become one, and those from it on another."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        tie_reshape(self, ties, x, out)

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("Squeeze", "Unsqueeze")
class Squeeze(OperatorNode):
    """Axes of one slice come and go; the others keep their order."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        tie_reshape(self, ties, x, out)

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("Transpose")
class Transpose(OperatorNode):
    """Output axis ``k`` is input axis ``perm[k]``."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        for dim, source in enumerate(self.params.get("perm") or reversed(range(x.rank))):
            ties.same(x.axis(source), out.axis(dim))

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("Expand")
class Expand(OperatorNode):
    """Axes of one slice are repeated; the others pass."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        for dim, size in enumerate(out.shape):
            source = dim - (out.rank - x.rank)
            if source >= 0 and x.shape[source] == size:
                ties.same(x.axis(source), out.axis(dim))
            elif size != 1:
                ties.copy(out.axis(dim))
        given = self.integers(1)
        if given is not None:
            declare_sizes(self, ties, 1, "shape", out, out.rank - len(given))

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("ConstantOfShape")
class Filled(OperatorNode):
    """One number in a given shape; axes may be made as long as those of another tensor."""

    def ties(self, ties: Ties) -> None:
        shape, out = self.in_data[0], self.out_data[0]
        assert shape is not None
        for dim, size in enumerate(out.shape):
            if size != 1:
                ties.copy(out.axis(dim))
        declare_sizes(self, ties, 0, "input", out)
        for dim in range(shape.rank):
            self.opaque_axis(ties, shape, dim, "it is a shape")

    def zero_products(self) -> Products | None:
        value = self.params.get("value")
        number = None if value is None else tensor_value(value)
        return () if value is None or (number is not None and not number.any()) else None


@describes("Tile")
class Tile(OperatorNode):
    """Each axis is ``repeats`` copies of itself, one after another."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        repeats = self.integers(1)
        if repeats is None:
            self.opaque(
                ties, "how often it is repeated is not known before the model runs", [x, out]
            )
            return
        for dim, count in enumerate(repeats):
            if count == 1:
                ties.same(x.axis(dim), out.axis(dim))
            elif x.shape[dim] == 1:
                ties.copy(out.axis(dim))
                ties.change("repeats", out.axis(dim), dim, len(repeats))
            else:
                copies = ties.new_axis(count)
                ties.copy(copies)
                ties.view(out.axis(dim), [copies, x.axis(dim)])

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("DepthToSpace", "SpaceToDepth")
class PixelShuffle(OperatorNode):
    """Channels of the deep side are blocks by channels (or the other way) of the wide side."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        deep, wide = (x, out) if self.type == "DepthToSpace" else (out, x)
        ties.same(x.axis(0), out.axis(0))
        block = ties.new_axis(int(self.params["blocksize"]) ** 2)
        ties.opaque(block, f"it becomes positions ({self.name})")
        channels_first = self.type == "DepthToSpace" and self.params.get("mode", "DCR") == "CRD"
        factors = [wide.axis(1), block] if channels_first else [block, wide.axis(1)]
        ties.view(deep.axis(1), factors)
        for node in (x, out):
            for dim in range(2, node.rank):
                self.opaque_axis(ties, node, dim, "it exchanges positions with channels")

    def zero_products(self) -> Products | None:
        return ((0,),)
