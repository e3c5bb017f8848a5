"""Scaled dot-product attention, kept as ONNX's one operator.

Source: https://onnx.ai/onnx/operators/onnx__Attention.html
"""

from __future__ import annotations

import math
from typing import Any

import torch

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer


@aten("scaled_dot_product_attention")
def attention(
    g: Writer,
    call: Call,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
) -> str:
    mask = attn_mask if mask is None else mask
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    rank = query.rank
    batch = query.shape[:-2]
    same = all(each.rank == rank and each.shape[:-2] == batch for each in (key, value))
    grouped = enable_gqa and rank == 4 and key.shape[0] == batch[0]
    if rank > 4 or not (same or grouped):
        return _spelled_out(g, call, query, key, value, mask, is_causal, factor, enable_gqa)
    inputs: list[Any] = [query, key, value]
    if rank < 4:
        axes = g.ints([1] if rank == 3 else [0, 1])
        inputs = [g.op("Unsqueeze", x, axes, shape=_four(x.shape), dtype=x.dtype) for x in inputs]
    allowed: Any = None
    if mask is not None:
        allowed = mask if mask.dtype is torch.bool else g.operand(mask, query.dtype)
        if rank == 3 and mask.rank == 3:
            allowed = g.op(
                "Unsqueeze", allowed, g.ints([1]), shape=_four(mask.shape), dtype=mask.dtype
            )
        elif mask.rank < 2:
            allowed = g.op("Expand", allowed, g.ints([query.shape[-2], key.shape[-2]]))
    out = g.op(
        "Attention",
        *inputs,
        allowed,
        is_causal=1 if is_causal else None,
        scale=factor,
        since=23,
        shape=_four(call.out.shape),
        dtype=query.dtype,
    )
    return out if rank == 4 else g.op("Squeeze", out, g.ints([1] if rank == 3 else [0, 1]))


def _four(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 3:
        return shape[0], 1, *shape[1:]
    return (1,) * (4 - len(shape)) + tuple(shape)


def _spelled_out(
    g: Writer,
    call: Call,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None,
    is_causal: bool,
    factor: float,
    grouped: bool,
) -> str:
    """Attention over more, or broadcast, axes of batch: ``softmax(Q K' * scale + mask) V``."""
    dtype = query.dtype
    order = [*range(key.rank - 2), key.rank - 1, key.rank - 2]
    k: Any = g.op("Transpose", key, perm=order)
    scores = g.op("Mul", g.op("MatMul", query, k), g.scalar(factor, dtype))
    if is_causal:
        shape = query.shape[-2], key.shape[-2]
        lower = torch.ones(shape, dtype=torch.bool).tril()
        scores = g.op("Where", g.tensor(lower), scores, g.scalar(float("-inf"), dtype))
    if mask is not None and mask.dtype is torch.bool:
        scores = g.op("Where", mask, scores, g.scalar(float("-inf"), dtype))
    elif mask is not None:
        scores = g.op("Add", scores, g.operand(mask, dtype))
    return g.op("MatMul", g.op("Softmax", scores, axis=-1), value)
