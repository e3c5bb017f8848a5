"""Values written at places that indices state."""

from __future__ import annotations

from typing import Any

import torch

from torchpruner_core.capture.errors import CaptureError
from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.translations.indexing import nonzero_of, tuples
from torchpruner_core.capture.writer import Writer

_REDUCTIONS = {
    "sum": "add",
    "add": "add",
    "prod": "mul",
    "multiply": "mul",
    "amax": "max",
    "amin": "min",
}


@aten("scatter.src scatter.value scatter.reduce scatter.value_reduce")
def scatter(
    g: Writer, call: Call, x: Value, dim: int, at: Value, source: Any, reduce: str | None = None
) -> str:
    kind = None if reduce is None else _REDUCTIONS[reduce]
    return _elements(g, x, dim, at, source, kind)


@aten("scatter_add")
def scatter_add(g: Writer, call: Call, x: Value, dim: int, at: Value, source: Value) -> str:
    return _elements(g, x, dim, at, source, "add")


@aten("scatter_reduce.two")
def scatter_reduce(
    g: Writer,
    call: Call,
    x: Value,
    dim: int,
    at: Value,
    source: Value,
    reduce: str,
    include_self: bool = True,
) -> str:
    if reduce not in _REDUCTIONS or not include_self:
        raise CaptureError(
            f"scatter_reduce with {reduce!r} and include_self={include_self} has no ONNX operator"
        )
    return _elements(g, x, dim, at, source, _REDUCTIONS[reduce])


def _elements(g: Writer, x: Value, dim: int, at: Value, source: Any, kind: str | None) -> str:
    updates: Any = source
    if type(source) is Value:
        if source.shape != at.shape:  # the source may be larger than what is read of it
            starts, ends = g.ints([0] * at.rank), g.ints(list(at.shape))
            updates = g.op(
                "Slice",
                source,
                starts,
                ends,
                g.ints(list(range(at.rank))),
                shape=at.shape,
                dtype=source.dtype,
            )
        updates = g.cast(updates, x.dtype, was=source.dtype)
    else:
        updates = g.op("Expand", g.scalar(source, x.dtype), g.op("Shape", at))
    return g.op("ScatterElements", x, at, updates, axis=dim % max(x.rank, 1), reduction=kind)


@aten("index_put _unsafe_index_put")
def index_put(
    g: Writer,
    call: Call,
    x: Value,
    indices: list[Value | None],
    values: Value,
    accumulate: bool = False,
) -> str:
    given = [(dim, each) for dim, each in enumerate(indices) if each is not None]
    first, mask = given[0]
    masked = mask.dtype in (torch.bool, torch.uint8)
    if masked and len(given) == 1 and not first and values.rank == 0 and not accumulate:
        return _where_mask(g, x, mask, values)
    if masked and len(given) > 1:
        raise CaptureError(
            "an assignment at a mask and other indices together has no ONNX operator"
        )
    if masked:
        if first:
            raise CaptureError("an assignment at a mask of inner axes has no ONNX operator")
        at = nonzero_of(g, mask)
        dims = list(range(mask.rank))
        if values.rank == 0:
            raise CaptureError("an addition at a mask has no ONNX operator")
        updates = g.cast(values, x.dtype)
        return g.op("ScatterND", x, at, updates, reduction="add" if accumulate else None)
    dims = [dim for dim, _ in given]
    rest = [dim for dim in range(x.rank) if dim not in dims]
    order = [*dims, *rest]
    places = [each for _, each in given]
    shape = torch.broadcast_shapes(*(each.shape for each in places))
    at = tuples(g, list(places), [each.shape for each in places])
    source = (
        g.name(x)
        if order == sorted(order)
        else g.op("Transpose", x, perm=order, shape=[x.shape[k] for k in order], dtype=x.dtype)
    )
    updates = g.cast(values, x.dtype)
    adjacent = dims == list(range(dims[0], dims[0] + len(dims)))
    depth = len(shape)
    if adjacent and dims[0]:
        full = (*x.shape[: dims[0]], *shape, *x.shape[dims[-1] + 1 :])
        if values.shape != full:
            updates = g.op("Expand", updates, g.ints(list(full)), shape=full, dtype=x.dtype)
        before = dims[0]
        moved = [*range(before, before + depth), *range(before), *range(before + depth, len(full))]
        updates = g.op("Transpose", updates, perm=moved)
    else:
        full = (*shape, *(x.shape[dim] for dim in rest))
        if values.shape != full:
            updates = g.op("Expand", updates, g.ints(list(full)), shape=full, dtype=x.dtype)
    out = g.op("ScatterND", source, at, updates, reduction="add" if accumulate else None)
    if order == sorted(order):
        return out
    return g.op("Transpose", out, perm=[order.index(k) for k in range(x.rank)])


def _where_mask(g: Writer, x: Value, mask: Value, values: Value) -> str:
    name = g.name(mask) if mask.dtype is torch.bool else g.op("Cast", mask, to=9)
    missing = x.rank - mask.rank
    if missing:
        name = g.op("Unsqueeze", name, g.ints(list(range(mask.rank, x.rank))))
    return g.op("Where", name, g.operand(values, x.dtype), x)


@aten("index_copy index_fill index_add")
def index_copy(
    g: Writer, call: Call, x: Value, dim: int, at: Value, source: Any, alpha: Any = 1
) -> str:
    dim %= x.rank
    order = [dim, *(k for k in range(x.rank) if k != dim)]
    back = [order.index(k) for k in range(x.rank)]
    rows = g.op("Unsqueeze", at if at.rank else g.op("Unsqueeze", at, g.ints([0])), g.ints([1]))
    base = g.op("Transpose", x, perm=order) if dim else g.name(x)
    shape = (at.shape[0] if at.rank else 1, *(x.shape[k] for k in order[1:]))
    if (
        call.name == "aten::index_fill"
        or type(source) is not Value
        or (not source.rank and x.rank > 1)
    ):
        updates = g.op("Expand", g.operand(source, x.dtype), g.ints(list(shape)))
    else:
        updates = g.cast(source, x.dtype)
        if alpha != 1:
            updates = g.op("Mul", updates, g.scalar(alpha, x.dtype))
        if dim:
            updates = g.op("Transpose", updates, perm=order)
    kind = "add" if call.name == "aten::index_add" else None
    out = g.op("ScatterND", base, rows, updates, reduction=kind)
    return g.op("Transpose", out, perm=back) if dim else out


@aten("masked_scatter")
def masked_scatter(g: Writer, call: Call, x: Value, mask: Value, source: Value) -> str:
    """The elements at the mask, in order, are those of the source: each counts how many came before."""
    wide: Any = mask
    if mask.shape != x.shape:
        wide = g.op("Expand", mask, g.ints(list(x.shape)), shape=x.shape, dtype=mask.dtype)
    flat = g.op("Reshape", wide, g.ints([-1]))
    counted = g.op("CumSum", g.op("Cast", flat, to=7), g.ints(0))
    at = g.op("Max", g.op("Sub", counted, g.ints(1)), g.ints(0))
    taken = g.op("Gather", g.op("Reshape", source, g.ints([-1])), at, axis=0)
    return g.op("Where", wide, g.op("Reshape", taken, g.ints(list(x.shape))), x)
