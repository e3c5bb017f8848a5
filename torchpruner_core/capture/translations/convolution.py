"""Convolutions. Sources: https://onnx.ai/onnx/operators/onnx__Conv.html, onnx__ConvTranspose.html"""

from __future__ import annotations

from typing import Any

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer


def each(value: Any, count: int) -> list[int]:
    """Return one number a spatial axis."""
    if isinstance(value, int):
        return [value] * count
    return [int(n) for n in value] if len(value) == count else [int(value[0])] * count


@aten("conv1d conv2d conv3d")
def conv(
    g: Writer,
    call: Call,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = (1,),
    padding: Any = (0,),
    dilation: Any = (1,),
    groups: int = 1,
) -> str:
    dims = weight.rank - 2
    kernel, dilations = weight.shape[2:], each(dilation, dims)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        pads = [n // 2 for n in total] + [n - n // 2 for n in total]
    elif padding == "valid":
        pads = [0] * 2 * dims
    else:
        pads = each(padding, dims) * 2
    settings: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": each(stride, dims),
        "pads": pads,
        "dilations": dilations,
        "group": groups,
    }
    return _batched(g, call, "Conv", x, weight, bias, settings)


@aten("conv_transpose1d conv_transpose2d conv_transpose3d")
def conv_transpose(
    g: Writer,
    call: Call,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = (1,),
    padding: Any = (0,),
    output_padding: Any = (0,),
    groups: int = 1,
    dilation: Any = (1,),
) -> str:
    dims = weight.rank - 2
    settings: dict[str, Any] = {
        "kernel_shape": weight.shape[2:],
        "strides": each(stride, dims),
        "pads": each(padding, dims) * 2,
        "dilations": each(dilation, dims),
        "group": groups,
    }
    extra = each(output_padding, dims)
    if any(extra):
        settings["output_padding"] = extra
    return _batched(g, call, "ConvTranspose", x, weight, bias, settings)


@aten("convolution _convolution")
def convolution(
    g: Writer,
    call: Call,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    *flags: bool,
) -> str:
    if transposed:
        return conv_transpose(
            g, call, x, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return conv(g, call, x, weight, bias, stride, padding, dilation, groups)


def _batched(
    g: Writer,
    call: Call,
    onnx_type: str,
    x: Value,
    weight: Value,
    bias: Value | None,
    settings: dict[str, Any],
) -> str:
    if x.rank == weight.rank:
        return g.op(onnx_type, x, weight, bias, **settings)
    batch = g.op("Unsqueeze", x, g.ints([0]), shape=(1, *x.shape), dtype=x.dtype)
    out = g.op(
        onnx_type, batch, weight, bias, shape=(1, *call.out.shape), dtype=x.dtype, **settings
    )
    return g.op("Squeeze", out, g.ints([0]))
