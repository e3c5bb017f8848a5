"""Parts of a tensor at places that the program states: ranges, single slices, splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer

END = 2**63 - 1


def taken(g: Writer, x: Any, dim: int, start: int, stop: int, step: int = 1, **known: Any) -> str:
    """Return a range of an axis."""
    bounds = [g.ints([start]), g.ints([stop]), g.ints([dim])]
    return g.op("Slice", x, *bounds, *([g.ints([step])] if step != 1 else []), **known)


@aten("slice")
def slice_(
    g: Writer,
    call: Call,
    x: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> str:
    dim %= x.rank
    if call.out.shape == x.shape and step == 1:
        return g.name(x)
    size = x.shape[dim]
    first = 0 if start is None else int(start)
    last = END if end is None or end >= size else int(end)
    return taken(g, x, dim, first, last, step)


@aten("select")
def select(g: Writer, call: Call, x: Value, dim: int, index: int) -> str:
    return g.op("Gather", x, g.ints(int(index)), axis=dim % x.rank)


@aten("split.Tensor split_with_sizes split.sizes split_with_sizes_copy")
def split(g: Writer, call: Call, x: Value, sizes: Any, dim: int = 0) -> list[str]:
    dim %= x.rank
    parts = [each.shape[dim] for each in call.outputs]
    if len(parts) == 1:
        return [g.name(x)]
    types = [(each.shape, each.dtype) for each in call.outputs]
    return g.ops("Split", x, g.ints(parts), outputs=len(parts), axis=dim, types=types)


@aten("unbind")
def unbind(g: Writer, call: Call, x: Value, dim: int = 0) -> list[str]:
    return [g.op("Gather", x, g.ints(k), axis=dim % x.rank) for k in range(len(call.outputs))]


@aten("flip")
def flip(g: Writer, call: Call, x: Value, dims: Sequence[int]) -> str:
    value: Any = x
    for dim in dims:
        value = taken(g, value, dim % x.rank, -1, -END, -1, shape=x.shape, dtype=x.dtype)
    return g.name(value)


@aten("roll")
def roll(g: Writer, call: Call, x: Value, shifts: Any, dims: Any = ()) -> str:
    shifts = [shifts] if isinstance(shifts, int) else list(shifts)
    dims = [dims] if isinstance(dims, int) else list(dims)
    if not dims:
        flat = g.op("Reshape", x, g.ints([-1]))
        count = 1
        for n in x.shape:
            count *= n
        return g.op(
            "Reshape",
            _rolled(g, flat, 0, shifts[0] % max(count, 1), (count,), x),
            g.ints(list(x.shape)),
        )
    value: Any = x
    for shift, dim in zip(shifts, dims, strict=True):
        dim %= x.rank
        if x.shape[dim] and shift % x.shape[dim]:
            value = _rolled(g, value, dim, shift % x.shape[dim], x.shape, x)
    return g.name(value)


def _rolled(g: Writer, value: Any, dim: int, shift: int, shape: Sequence[int], x: Value) -> str:
    def like(size: int) -> dict[str, Any]:
        return {"shape": (*shape[:dim], size, *shape[dim + 1 :]), "dtype": x.dtype}

    size = shape[dim]
    tail = taken(g, value, dim, size - shift, END, **like(shift))
    head = taken(g, value, dim, 0, size - shift, **like(size - shift))
    return g.op("Concat", tail, head, axis=dim, **like(size))


@aten("index_select")
def index_select(g: Writer, call: Call, x: Value, dim: int, index: Value) -> str:
    if not x.rank:
        return g.name(x)
    at: Any = index if index.rank else g.op("Unsqueeze", index, g.ints([0]))
    return g.op("Gather", x, at, axis=dim % x.rank)


@aten("tril triu")
def triangle(g: Writer, call: Call, x: Value, diagonal: int = 0) -> str:
    value: Any = x if x.dtype is not torch.bool else g.op("Cast", x, to=6)
    out = g.op("Trilu", value, g.ints(diagonal), upper=int(call.name.endswith("triu")))
    return out if x.dtype is not torch.bool else g.op("Cast", out, to=9)
