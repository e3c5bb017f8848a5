"""Tensors put together: concatenation, stacks, and a part put back where it was taken."""

from __future__ import annotations

import torch

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer


@aten("cat concat concatenate")
def cat(g: Writer, call: Call, tensors: list[Value], dim: int = 0) -> str:
    # An empty vector may stand beside anything, for PyTorch alone.
    parts = [t for t in tensors if t.shape != (0,)] or tensors[:1]
    names = [g.operand(part, call.out.dtype) for part in parts]
    return names[0] if len(names) == 1 else g.op("Concat", *names, axis=dim % call.out.rank)


@aten("stack")
def stack(g: Writer, call: Call, tensors: list[Value], dim: int = 0) -> str:
    dim %= call.out.rank
    axes = g.ints([dim])
    names = []
    for each in tensors:
        shape = (*each.shape[:dim], 1, *each.shape[dim:])
        name = g.operand(each, call.out.dtype)
        names.append(g.op("Unsqueeze", name, axes, shape=shape, dtype=call.out.dtype))
    return names[0] if len(names) == 1 else g.op("Concat", *names, axis=dim)


@aten("slice_scatter")
def slice_scatter(
    g: Writer,
    call: Call,
    x: Value,
    source: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> str:
    dim %= x.rank
    size = x.shape[dim]
    first, last, stride = slice(start, None if end is None else min(end, size), step).indices(size)
    new = g.cast(source, x.dtype)
    if stride != 1:
        return _put_rows(g, x, new, dim, torch.arange(first, last, stride))
    return _put_range(g, x, new, dim, first, max(first, last))


@aten("select_scatter")
def select_scatter(g: Writer, call: Call, x: Value, source: Value, dim: int, index: int) -> str:
    dim %= x.rank
    at = int(index) % x.shape[dim]
    shape = (*x.shape[:dim], 1, *x.shape[dim + 1 :])
    new = g.op("Unsqueeze", g.cast(source, x.dtype), g.ints([dim]), shape=shape, dtype=x.dtype)
    return _put_range(g, x, new, dim, at, at + 1)


def _put_range(g: Writer, x: Value, new: str, dim: int, first: int, last: int) -> str:
    """Return ``x`` with a range of an axis replaced.

    As rows that are written over, since what is written in place is a part of the tensor it is written
    into: a slice that goes from the one goes from the other.
    """
    if first == 0 and last >= x.shape[dim]:
        return new
    return _put_rows(g, x, new, dim, torch.arange(first, last))


def _put_rows(g: Writer, x: Value, new: str, dim: int, at: torch.Tensor) -> str:
    order = [dim, *(k for k in range(x.rank) if k != dim)]
    back = [order.index(k) for k in range(x.rank)]
    first = g.op("Transpose", x, perm=order) if dim else g.name(x)
    rows = g.op("Transpose", new, perm=order) if dim else new
    out = g.op("ScatterND", first, g.tensor(at[:, None]), rows)
    return g.op("Transpose", out, perm=back) if dim else out


@aten("diagonal_scatter")
def diagonal_scatter(
    g: Writer, call: Call, x: Value, source: Value, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> str:
    a, b = dim1 % x.rank, dim2 % x.rank
    rest = [k for k in range(x.rank) if k not in (a, b)]
    order = [a, b, *rest]
    back = [order.index(k) for k in range(x.rank)]
    start_a, start_b = (0, offset) if offset >= 0 else (-offset, 0)
    at = torch.arange(source.shape[-1])
    index = torch.stack([at + start_a, at + start_b], dim=1)
    turned = g.op("Transpose", source, perm=[source.rank - 1, *range(source.rank - 1)])
    out = g.op("ScatterND", g.op("Transpose", x, perm=order), g.tensor(index), turned)
    return g.op("Transpose", out, perm=back)
