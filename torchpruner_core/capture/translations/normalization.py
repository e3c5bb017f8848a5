"""Normalisations and softmax."""

from __future__ import annotations

from typing import Any

import torch

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer


def _ones(g: Writer, size: Any, dtype: torch.dtype) -> str:
    return g.tensor(torch.ones(size, dtype=dtype))


def _zeros(g: Writer, size: Any, dtype: torch.dtype) -> str:
    return g.tensor(torch.zeros(size, dtype=dtype))


@aten("batch_norm")
def batch_norm(
    g: Writer,
    call: Call,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    var: Value | None,
    training: bool,
    momentum: float,
    eps: float,
    fast: bool = False,
) -> str:
    channels = x.shape[1]
    kind = x.dtype if mean is None else mean.dtype
    scale = _ones(g, channels, kind) if weight is None else g.name(weight)
    shift = _zeros(g, channels, kind) if bias is None else g.name(bias)
    if mean is None or var is None:
        return _by_batch(g, x, scale, shift, eps)
    if training:
        same = [(x.shape, x.dtype), (mean.shape, mean.dtype), (var.shape, var.dtype)]
        out, *_ = g.ops(
            "BatchNormalization",
            x,
            scale,
            shift,
            mean,
            var,
            outputs=3,
            types=same,
            epsilon=eps,
            momentum=1 - momentum,
            training_mode=1,
        )
        return out
    return g.op("BatchNormalization", x, scale, shift, mean, var, epsilon=eps)


@aten("native_batch_norm _native_batch_norm_legit")
def native_batch_norm(
    g: Writer, call: Call, x: Value, weight: Any, bias: Any, *rest: Any
) -> list[str | None]:
    mean, var = (None, None) if call.overload == "no_stats" else rest[:2]
    training, momentum, eps = rest[-3:]
    return [batch_norm(g, call, x, weight, bias, mean, var, training, momentum, eps)]


def _by_batch(g: Writer, x: Value, scale: str, shift: str, eps: float) -> str:
    """Normalise with the statistics of the batch itself, a channel at a time."""
    axes = g.ints([0, *range(2, x.rank)])
    like: dict[str, Any] = {"shape": x.shape, "dtype": x.dtype}
    each: dict[str, Any] = {"shape": (1, x.shape[1], *[1] * (x.rank - 2)), "dtype": x.dtype}
    means = g.op("ReduceMean", x, axes, keepdims=1, **each)
    centred = g.op("Sub", x, means, **like)
    spread = g.op("ReduceMean", g.op("Mul", centred, centred, **like), axes, keepdims=1, **each)
    root = g.op("Sqrt", g.op("Add", spread, g.scalar(eps, x.dtype), **each), **each)
    if x.rank > 2:
        wide = g.ints(list(range(1, x.rank - 1)))
        channel: dict[str, Any] = {"shape": each["shape"][1:], "dtype": x.dtype}
        scale, shift = (g.op("Unsqueeze", value, wide, **channel) for value in (scale, shift))
    scaled = g.op("Mul", g.op("Div", centred, root, **like), scale, **like)
    return g.op("Add", scaled, shift, **like)


@aten("instance_norm")
def instance_norm(
    g: Writer,
    call: Call,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    var: Value | None,
    by_input: bool,
    momentum: float,
    eps: float,
    fast: bool = False,
) -> str:
    if not by_input:
        return batch_norm(g, call, x, weight, bias, mean, var, False, momentum, eps)
    channels = x.shape[1]
    scale = _ones(g, channels, x.dtype) if weight is None else g.name(weight)
    shift = _zeros(g, channels, x.dtype) if bias is None else g.name(bias)
    return g.op("InstanceNormalization", x, scale, shift, epsilon=eps)


@aten("layer_norm")
def layer_norm(
    g: Writer,
    call: Call,
    x: Value,
    normalized: Any,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    fast: bool = True,
) -> str:
    scale = _ones(g, list(normalized), x.dtype) if weight is None else g.name(weight)
    return g.op("LayerNormalization", x, scale, bias, axis=-len(normalized), epsilon=eps)


@aten("native_layer_norm")
def native_layer_norm(
    g: Writer, call: Call, x: Value, normalized: Any, weight: Any, bias: Any, eps: float
) -> list[str | None]:
    return [layer_norm(g, call, x, normalized, weight, bias, eps)]


@aten("rms_norm")
def rms_norm(
    g: Writer, call: Call, x: Value, normalized: Any, weight: Value | None = None, eps: Any = None
) -> str:
    epsilon = torch.finfo(x.dtype).eps if eps is None else float(eps)
    scale = _ones(g, list(normalized), x.dtype) if weight is None else g.name(weight)
    return g.op("RMSNormalization", x, scale, axis=-len(normalized), epsilon=epsilon, since=23)


@aten("_fused_rms_norm")
def fused_rms_norm(
    g: Writer, call: Call, x: Value, normalized: Any, weight: Any, eps: Any
) -> list[str | None]:
    return [rms_norm(g, call, x, normalized, weight, eps)]


@aten("group_norm")
def group_norm(
    g: Writer,
    call: Call,
    x: Value,
    groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    fast: bool = True,
) -> str:
    channels = x.shape[1]
    scale = _ones(g, channels, x.dtype) if weight is None else g.name(weight)
    shift = _zeros(g, channels, x.dtype) if bias is None else g.name(bias)
    inner: Any = x
    if x.rank == 2:
        inner = g.op("Unsqueeze", x, g.ints([2]), shape=(*x.shape, 1), dtype=x.dtype)
    out = g.op("GroupNormalization", inner, scale, shift, num_groups=groups, epsilon=eps, since=21)
    return out if x.rank > 2 else g.op("Squeeze", out, g.ints([2]))


@aten("native_group_norm")
def native_group_norm(
    g: Writer,
    call: Call,
    x: Value,
    weight: Any,
    bias: Any,
    n: int,
    c: int,
    hw: int,
    groups: int,
    eps: float,
) -> list[str | None]:
    return [group_norm(g, call, x, groups, weight, bias, eps)]


def _softmax_like(onnx_type: str) -> Any:
    def translate(g: Writer, call: Call, x: Value, dim: int, dtype: Any = None) -> str:
        if not x.rank:
            return g.op(onnx_type, g.operand(x, call.out.dtype), axis=0)
        value = x if x.dtype is call.out.dtype else g.cast(x, call.out.dtype)
        return g.op(onnx_type, value, axis=dim % x.rank)

    return translate


aten("softmax.int _softmax special_softmax")(_softmax_like("Softmax"))
aten("log_softmax.int _log_softmax special_log_softmax")(_softmax_like("LogSoftmax"))


@aten("_safe_softmax")
def safe_softmax(g: Writer, call: Call, x: Value, dim: int, dtype: Any = None) -> str:
    low = g.op("Equal", x, g.scalar(float("-inf"), x.dtype))
    axes = g.ints([dim % x.rank])
    none = g.op(
        "Equal",
        g.op("ReduceMin", g.op("Cast", low, to=6), axes, keepdims=1),
        g.scalar(1, torch.int32),
    )
    out = g.op("Softmax", x, axis=dim % x.rank)
    return g.op("Where", none, g.scalar(0, x.dtype), out)


@aten("_weight_norm_interface")
def weight_norm(g: Writer, call: Call, v: Value, scale: Value, dim: int = 0) -> list[str]:
    axes = g.ints([axis for axis in range(v.rank) if axis != dim])
    norms = g.op("ReduceL2", v, axes, keepdims=1, shape=scale.shape, dtype=v.dtype)
    return [g.op("Mul", v, g.op("Div", scale, norms, shape=scale.shape, dtype=v.dtype)), norms]
