"""Places that a tensor of indices states: ``x[:, index]``, ``gather``, ``embedding``.

Indices that the program states become one ``Gather``; only those that data gives are addressed
by tuples.
"""

from __future__ import annotations

from typing import Any

import torch

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer


@aten("index _unsafe_index")
def index(g: Writer, call: Call, x: Value, indices: list[Value | None]) -> str:
    given = [(dim, each) for dim, each in enumerate(indices) if each is not None]
    masks = [each for _, each in given if each.dtype in (torch.bool, torch.uint8)]
    if masks:
        return _by_masks(g, call, x, given)
    if len(given) == 1:
        dim, at = given[0]
        return g.op("Gather", x, at, axis=dim)
    dims = [dim for dim, _ in given]
    adjacent = dims == list(range(dims[0], dims[0] + len(dims)))
    if adjacent and all(at.fixed and at.data is not None for _, at in given):
        return _by_constants(g, x, dims, [at for _, at in given])
    return _by_tuples(g, x, dims, [at for _, at in given], adjacent)


def _by_constants(g: Writer, x: Value, dims: list[int], at: list[Value]) -> str:
    """Axes side by side, addressed at stated places: one axis of their product."""
    flat = torch.zeros((), dtype=torch.int64)
    for dim, each in zip(dims, at, strict=True):
        assert each.data is not None
        flat = flat * x.shape[dim] + each.data.to(torch.int64) % x.shape[dim]
    shape = [*x.shape[: dims[0]], -1, *x.shape[dims[-1] + 1 :]]
    return g.op("Gather", g.op("Reshape", x, g.ints(shape)), g.tensor(flat), axis=dims[0])


def tuples(g: Writer, at: list[Any], shapes: list[tuple[int, ...]]) -> str:
    """Return indices that broadcast as tuples: their common shape, then one entry each."""
    shape = torch.broadcast_shapes(*shapes)
    wide = []
    for each, own in zip(at, shapes, strict=True):
        name = g.cast(each, torch.int64) if type(each) is Value else each
        if tuple(own) != tuple(shape):
            name = g.op("Expand", name, g.ints(list(shape)), shape=shape, dtype=torch.int64)
        wide.append(
            g.op("Unsqueeze", name, g.ints([len(shape)]), shape=(*shape, 1), dtype=torch.int64)
        )
    if len(wide) == 1:
        return wide[0]
    return g.op("Concat", *wide, axis=len(shape), shape=(*shape, len(wide)), dtype=torch.int64)


def _by_tuples(g: Writer, x: Value, dims: list[int], at: list[Value], adjacent: bool) -> str:
    rest = [dim for dim in range(x.rank) if dim not in dims]
    order = [*dims, *rest]
    source = g.name(x) if order == sorted(order) else g.op("Transpose", x, perm=order)
    shapes = [each.shape for each in at]
    out = g.op("GatherND", source, tuples(g, list(at), shapes))
    if not adjacent or not dims[0]:
        return out
    depth = len(torch.broadcast_shapes(*shapes))
    moved = [
        *range(depth, depth + dims[0]),
        *range(depth),
        *range(depth + dims[0], depth + len(rest)),
    ]
    return g.op("Transpose", out, perm=moved)


def nonzero_of(g: Writer, mask: Value) -> str:
    """Return the places where a mask holds, one a row."""
    return g.op("Transpose", g.op("NonZero", mask), perm=[1, 0])


def _by_masks(g: Writer, call: Call, x: Value, given: list[tuple[int, Value]]) -> str:
    dims: list[int] = []
    columns: list[str] = []
    shapes: list[tuple[int, ...]] = []
    for start, each in given:
        if each.dtype in (torch.bool, torch.uint8):
            if each.fixed and each.data is not None:
                rows = each.data.bool().nonzero()
                found = [g.tensor(rows[:, k].contiguous()) for k in range(rows.shape[1])]
                length: tuple[int, ...] = (rows.shape[0],)
            else:
                places = g.op("NonZero", each)
                found = [g.op("Gather", places, g.ints(k), axis=0) for k in range(each.rank)]
                length = call.out.shape[start : start + 1]
            for k, name in enumerate(found):
                dims.append(start + k)
                columns.append(name)
                shapes.append(tuple(length))
        else:
            dims.append(start)
            columns.append(g.cast(each, torch.int64))
            shapes.append(each.shape)
    rest = [dim for dim in range(x.rank) if dim not in dims]
    order = [*dims, *rest]
    if len(dims) == 1:
        return g.op("Gather", x, columns[0], axis=dims[0])
    source = g.name(x) if order == sorted(order) else g.op("Transpose", x, perm=order)
    out = g.op("GatherND", source, tuples(g, columns, shapes))
    if not dims[0] or dims != list(range(dims[0], dims[0] + len(dims))):
        return out
    depth = len(torch.broadcast_shapes(*shapes))
    moved = [
        *range(depth, depth + dims[0]),
        *range(depth),
        *range(depth + dims[0], depth + len(rest)),
    ]
    return g.op("Transpose", out, perm=moved)


@aten("masked_select")
def masked_select(g: Writer, call: Call, x: Value, mask: Value) -> str:
    shape = torch.broadcast_shapes(x.shape, mask.shape)
    values = x if x.shape == shape else g.op("Expand", x, g.ints(list(shape)))
    wide = mask if mask.shape == shape else g.op("Expand", mask, g.ints(list(shape)))
    return g.op("Compress", values, g.op("Reshape", wide, g.ints([-1])))


@aten("nonzero argwhere")
def nonzero(g: Writer, call: Call, x: Value) -> str:
    return nonzero_of(g, x)


@aten("gather")
def gather(g: Writer, call: Call, x: Value, dim: int, at: Value, sparse_grad: bool = False) -> str:
    if not x.rank:
        return g.op("Expand", x, g.ints(list(at.shape)))
    return g.op("GatherElements", x, at, axis=dim % x.rank)


@aten("take")
def take(g: Writer, call: Call, x: Value, at: Value) -> str:
    return g.op("Gather", g.op("Reshape", x, g.ints([-1])), at, axis=0)


@aten("embedding")
def embedding(g: Writer, call: Call, weight: Value, at: Value, *rest: Any, **more: Any) -> str:
    return g.op("Gather", weight, at, axis=0)


@aten("one_hot")
def one_hot(g: Writer, call: Call, x: Value, classes: int = -1) -> str:
    depth = g.ints(call.out.shape[-1])
    return g.op("OneHot", x, depth, g.ints([0, 1]), axis=-1)
