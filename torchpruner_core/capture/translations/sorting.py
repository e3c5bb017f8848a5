"""Order: the largest, sorted values, running sums, and where a value would stand."""

from __future__ import annotations

from typing import Any

import torch

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import ELEMENTS, Writer


@aten("topk")
def topk(
    g: Writer,
    call: Call,
    x: Value,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,
) -> list[str]:
    return _top(g, call, x, k, dim, largest)


def _top(g: Writer, call: Call, x: Value, k: int, dim: int, largest: bool) -> list[str]:
    if not x.rank:
        return [g.name(x), g.ints(0)]
    types = [(call.outputs[0].shape, x.dtype), (call.outputs[0].shape, torch.int64)]
    value: Any = x
    if x.dtype is torch.bool:
        value = g.op("Cast", x, to=6)
        types[0] = (types[0][0], torch.int32)
    found = g.ops(
        "TopK",
        value,
        g.ints([int(k)]),
        outputs=2,
        axis=dim % x.rank,
        largest=int(largest),
        types=types,
    )
    if x.dtype is torch.bool:
        found[0] = g.op("Cast", found[0], to=9)
    return found


@aten("sort.default")
def sort(g: Writer, call: Call, x: Value, dim: int = -1, descending: bool = False) -> list[str]:
    return _top(g, call, x, x.shape[dim] if x.rank else 1, dim, descending)


@aten("sort.stable")
def sort_stable(
    g: Writer, call: Call, x: Value, stable: Any = None, dim: int = -1, descending: bool = False
) -> list[str]:
    return _top(g, call, x, x.shape[dim] if x.rank else 1, dim, descending)


@aten("kthvalue")
def kthvalue(
    g: Writer, call: Call, x: Value, k: int, dim: int = -1, keepdim: bool = False
) -> list[str]:
    axis = dim % x.rank
    values, places = g.ops("TopK", x, g.ints([x.shape[axis]]), outputs=2, axis=axis, largest=0)
    at = g.ints([k - 1] if keepdim else k - 1)
    return [g.op("Gather", each, at, axis=axis) for each in (values, places)]


@aten("median.dim")
def median(g: Writer, call: Call, x: Value, dim: int = -1, keepdim: bool = False) -> list[str]:
    return kthvalue(g, call, x, (x.shape[dim] + 1) // 2, dim, keepdim)


def _running(onnx_type: str) -> Any:
    def translate(g: Writer, call: Call, x: Value, dim: int, dtype: Any = None) -> str:
        value = g.operand(x, call.out.dtype)
        return value if not x.rank else g.op(onnx_type, value, g.ints(dim % x.rank))

    return translate


aten("cumsum")(_running("CumSum"))


@aten("cumprod")
def cumprod(g: Writer, call: Call, x: Value, dim: int, dtype: Any = None) -> str:
    value = g.operand(x, call.out.dtype)
    return value if not x.rank else g.op("CumProd", value, g.ints(dim % x.rank), since=26)


@aten("searchsorted")
def searchsorted(
    g: Writer,
    call: Call,
    edges: Value,
    x: Any,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> str:
    """How many of the sorted numbers stand before each value: an index as PyTorch gives it."""
    right = right or side == "right"
    dtype = edges.dtype
    value = g.op("Unsqueeze", g.operand(x, dtype), g.ints([-1]))
    bounds: Any = edges
    if edges.rank > 1:
        bounds = g.op("Unsqueeze", edges, g.ints([-2]))
    before = g.op("LessOrEqual" if right else "Less", bounds, value)
    return g.op(
        "ReduceSum", g.op("Cast", before, to=ELEMENTS[call.out.dtype][0]), g.ints([-1]), keepdims=0
    )


@aten("bucketize")
def bucketize(
    g: Writer, call: Call, x: Any, edges: Value, out_int32: bool = False, right: bool = False
) -> str:
    return searchsorted(g, call, edges, x, out_int32, right)
