"""The same elements under another shape or in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torchpruner_core.capture.errors import CaptureError
from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer


@aten("view.default _unsafe_view reshape _reshape_alias")
def view(g: Writer, call: Call, x: Value, shape: Sequence[int], *rest: Any) -> str:
    if tuple(shape) == x.shape:
        return g.name(x)
    sizes = [int(size) for size in shape]
    # A zero means something else in ONNX. Where an axis is split, the number of parts that is left
    # open is what modules keep as an attribute (their heads): stated, it can be followed.
    if 0 in sizes or len(sizes) > x.rank:
        sizes = list(call.out.shape)
    return g.op("Reshape", x, g.ints(sizes), allowzero=1 if 0 in sizes else None)


@aten("unsqueeze")
def unsqueeze(g: Writer, call: Call, x: Value, dim: int) -> str:
    return g.op("Unsqueeze", x, g.ints([dim % (x.rank + 1)]))


@aten("squeeze")
def squeeze(g: Writer, call: Call, x: Value, dim: Any = None) -> str:
    dims = range(x.rank) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = sorted({d % max(x.rank, 1) for d in dims if x.rank and x.shape[d] == 1})
    return g.op("Squeeze", x, g.ints(axes)) if axes else g.name(x)


@aten("permute")
def permute(g: Writer, call: Call, x: Value, dims: Sequence[int]) -> str:
    order = [int(d) % x.rank for d in dims]
    return g.name(x) if order == sorted(order) else g.op("Transpose", x, perm=order)


@aten("transpose.int swapaxes swapdims")
def transpose(g: Writer, call: Call, x: Value, a: int, b: int) -> str:
    order = list(range(x.rank))
    if x.rank < 2 or a % x.rank == b % x.rank:
        return g.name(x)
    order[a], order[b] = order[b], order[a]
    return g.op("Transpose", x, perm=order)


aten("transpose")(transpose)  # as a write through a view records it


@aten("t")
def turn(g: Writer, call: Call, x: Value) -> str:
    return g.name(x) if x.rank < 2 else g.op("Transpose", x, perm=[1, 0])


@aten("expand")
def expand(g: Writer, call: Call, x: Value, size: Sequence[int], implicit: bool = False) -> str:
    if call.out.shape == x.shape:
        return g.name(x)
    new = len(size) - x.rank
    # A size that is kept stands as 1, which leaves it as it is.
    shape = [
        1 if k >= new and call.out.shape[k] == x.shape[k - new] else call.out.shape[k]
        for k in range(len(size))
    ]
    return g.op("Expand", x, g.ints(shape))


@aten("repeat")
def repeat(g: Writer, call: Call, x: Value, repeats: Sequence[int]) -> str:
    value: Any = x
    if len(repeats) > x.rank:
        value = g.op("Unsqueeze", x, g.ints(list(range(len(repeats) - x.rank))))
    return (
        value
        if all(n == 1 for n in repeats) and type(value) is str
        else g.op("Tile", value, g.ints(list(repeats)))
    )


@aten("repeat_interleave.self_int")
def repeat_interleave(
    g: Writer, call: Call, x: Value, repeats: int, dim: int | None = None, output_size: Any = None
) -> str:
    value: Any = x
    rank = x.rank
    if dim is None:
        value, rank, dim = g.reshape(x, [-1]), 1, 0
    dim %= rank
    wide = g.op("Unsqueeze", value, g.ints([dim + 1]))
    shape = [1] * (rank + 1)
    shape[dim + 1] = repeats
    copies = g.op("Expand", wide, g.ints(shape))
    return g.op("Reshape", copies, g.ints(list(call.out.shape)))


@aten("pixel_shuffle")
def pixel_shuffle(g: Writer, call: Call, x: Value, factor: int) -> str:
    if x.rank == 4:
        return g.op("DepthToSpace", x, blocksize=factor, mode="CRD")
    shape = x.shape
    flat = g.op("Reshape", x, g.ints([-1, *shape[-3:]]))
    out = g.op("DepthToSpace", flat, blocksize=factor, mode="CRD")
    return g.op("Reshape", out, g.ints(list(call.out.shape)))


@aten("pixel_unshuffle")
def pixel_unshuffle(g: Writer, call: Call, x: Value, factor: int) -> str:
    *batch, c, h, w = x.shape
    r, b = factor, len(batch)
    parts = g.op("Reshape", x, g.ints([*batch, c, h // r, r, w // r, r]))
    order = [*range(b), b, b + 2, b + 4, b + 1, b + 3]
    return g.op("Reshape", g.op("Transpose", parts, perm=order), g.ints(list(call.out.shape)))


@aten("channel_shuffle native_channel_shuffle")
def channel_shuffle(g: Writer, call: Call, x: Value, groups: int) -> str:
    n, c, *rest = x.shape
    parts = g.op("Reshape", x, g.ints([n, groups, c // groups, *rest]))
    order = [0, 2, 1, *range(3, len(rest) + 3)]
    return g.op("Reshape", g.op("Transpose", parts, perm=order), g.ints(list(x.shape)))


@aten("unfold")
def unfold(g: Writer, call: Call, x: Value, dim: int, size: int, step: int) -> str:
    """Windows of an axis; the places inside a window become the last axis."""
    dim %= x.rank
    count = (x.shape[dim] - size) // step + 1
    at = torch.arange(count)[:, None] * step + torch.arange(size)[None, :]
    windows = g.op("Gather", x, g.tensor(at), axis=dim)
    order = [*range(dim + 1), *range(dim + 2, x.rank + 1), dim + 1]
    return g.op("Transpose", windows, perm=order)


@aten("as_strided")
def as_strided(
    g: Writer,
    call: Call,
    x: Value,
    size: Sequence[int],
    stride: Sequence[int],
    offset: int | None = None,
) -> str:
    """Elements addressed by memory: right where the tensor that is viewed lies in order."""
    at = torch.tensor(offset or 0)
    for n, step in zip(size, stride, strict=True):
        at = at[..., None] + torch.arange(n) * step
    count = 1
    for n in x.shape:
        count *= n
    if at.numel() and int(at.max()) >= count:
        raise CaptureError("as_strided reaches outside the tensor that it views")
    return g.op("Gather", g.op("Reshape", x, g.ints([-1])), g.tensor(at), axis=0)


@aten("diagonal")
def diagonal(g: Writer, call: Call, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> str:
    a, b = dim1 % x.rank, dim2 % x.rank
    rest = [k for k in range(x.rank) if k not in (a, b)]
    turned: Any = g.op("Transpose", x, perm=[*rest, a, b])
    count = call.out.shape[-1]
    start_a, start_b = (0, offset) if offset >= 0 else (-offset, 0)
    at = torch.arange(count)
    flat = g.op("Reshape", turned, g.ints([*(x.shape[k] for k in rest), -1]))
    index = (at + start_a) * x.shape[b] + at + start_b
    return g.op("Gather", flat, g.tensor(index), axis=len(rest))


@aten("im2col")
def im2col(
    g: Writer, call: Call, x: Value, kernel: Any, dilation: Any, padding: Any, stride: Any
) -> str:
    """Windows of an image as columns: channels by places in the window, then positions."""
    value: Any = x if x.rank == 4 else g.op("Unsqueeze", x, g.ints([0]))
    n, c = (x.shape[0] if x.rank == 4 else 1), x.shape[-3]
    if any(padding):
        pads = [0, 0, *padding, 0, 0, *padding]
        value = g.op("Pad", value, g.ints(pads), g.scalar(0, x.dtype))
    outs = []
    for k in range(2):
        size = x.shape[k - 2] + 2 * padding[k]
        count = (size - dilation[k] * (kernel[k] - 1) - 1) // stride[k] + 1
        outs.append(count)
        at = (
            torch.arange(kernel[k])[:, None] * dilation[k]
            + torch.arange(count)[None, :] * stride[k]
        )
        value = g.op("Gather", value, g.tensor(at), axis=2 + 2 * k)
    # (n, c, kernel, positions, kernel, positions)
    turned = g.op("Transpose", value, perm=[0, 1, 2, 4, 3, 5])
    shape = [n, c * kernel[0] * kernel[1], outs[0] * outs[1]]
    out = g.op("Reshape", turned, g.ints(shape))
    return out if x.rank == 4 else g.op("Squeeze", out, g.ints([0]))


@aten("col2im")
def col2im(
    g: Writer,
    call: Call,
    x: Value,
    size: Any,
    kernel: Any,
    dilation: Any,
    padding: Any,
    stride: Any,
) -> str:
    value: Any = x if x.rank == 3 else g.op("Unsqueeze", x, g.ints([0]))
    out = g.op(
        "Col2Im",
        value,
        g.ints(list(size)),
        g.ints(list(kernel)),
        dilations=list(dilation),
        pads=[*padding, *padding],
        strides=list(stride),
    )
    return out if x.rank == 3 else g.op("Squeeze", out, g.ints([0]))
