"""Quantisation in training: rounding to a grid, written out, so that it is exact for every grid."""

from __future__ import annotations

from typing import Any

import torch

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer


def _rounded(g: Writer, x: Value, scale: Any, zero: Any, low: int, high: int) -> str:
    dtype = x.dtype
    steps = g.op(
        "Round", g.op("Div", x, scale, shape=x.shape, dtype=dtype), shape=x.shape, dtype=dtype
    )
    moved = g.op("Add", steps, zero, shape=x.shape, dtype=dtype)
    held = g.op(
        "Clip", moved, g.scalar(low, dtype), g.scalar(high, dtype), shape=x.shape, dtype=dtype
    )
    return g.op("Mul", g.op("Sub", held, zero, shape=x.shape, dtype=dtype), scale)


@aten("fake_quantize_per_tensor_affine")
def per_tensor(g: Writer, call: Call, x: Value, scale: Any, zero: Any, low: int, high: int) -> str:
    return _rounded(g, x, _one(g, scale, x.dtype), _one(g, zero, x.dtype), low, high)


def _one(g: Writer, value: Any, dtype: torch.dtype) -> str:
    name = g.operand(value, dtype)
    return g.op("Reshape", name, g.ints([])) if type(value) is Value and value.rank else name


@aten(
    "fake_quantize_per_tensor_affine_cachemask _fake_quantize_per_tensor_affine_cachemask_tensor_qparams"
)
def per_tensor_masked(
    g: Writer, call: Call, x: Value, scale: Any, zero: Any, *rest: Any
) -> list[str]:
    low, high = rest[-2:]
    return [per_tensor(g, call, x, scale, zero, low, high)]


@aten("fake_quantize_per_channel_affine")
def per_channel(
    g: Writer, call: Call, x: Value, scale: Value, zero: Value, axis: int, low: int, high: int
) -> str:
    wide = g.ints([k for k in range(x.rank) if k != axis % x.rank])
    shape = tuple(n if k == axis % x.rank else 1 for k, n in enumerate(x.shape))
    parts = [
        g.op("Unsqueeze", g.operand(each, x.dtype), wide, shape=shape, dtype=x.dtype)
        for each in (scale, zero)
    ]
    return _rounded(g, x, parts[0], parts[1], low, high)


@aten("fake_quantize_per_channel_affine_cachemask")
def per_channel_masked(
    g: Writer, call: Call, x: Value, scale: Value, zero: Value, axis: int, low: int, high: int
) -> list[str]:
    return [per_channel(g, call, x, scale, zero, axis, low, high)]
