"""Pooling. Source: https://onnx.ai/onnx/operators/onnx__MaxPool.html and the pages beside it"""

from __future__ import annotations

from typing import Any

import torch

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.translations.convolution import each
from torchpruner_core.capture.writer import Writer


def _in_batch(g: Writer, call: Call, x: Value, dims: int, make: Any) -> str:
    """Let ``make`` pool a batch; a single picture becomes a batch of one."""
    if x.rank == dims + 2:
        return str(make(x))
    batch = g.op("Unsqueeze", x, g.ints([0]), shape=(1, *x.shape), dtype=x.dtype)
    return g.op("Squeeze", make(batch), g.ints([0]))


def _window(
    x: Value,
    call: Call,
    dims: int,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil: bool,
) -> dict[str, Any]:
    """Return the attributes of a window; rounding up becomes padding behind."""
    k, p, d = each(kernel, dims), each(padding, dims), each(dilation, dims)
    s = each(stride, dims) if stride else k
    behind = list(p)
    if ceil:
        for axis in range(dims):
            size, out = x.shape[axis - dims], call.out.shape[axis - dims]
            behind[axis] = max(
                0, (out - 1) * s[axis] + d[axis] * (k[axis] - 1) + 1 - size - p[axis]
            )
    return {"kernel_shape": k, "strides": s, "pads": [*p, *behind], "dilations": d}


def _max_pool(dims: int, with_indices: bool) -> Any:
    def translate(
        g: Writer,
        call: Call,
        x: Value,
        kernel: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil: bool = False,
    ) -> str | list[str]:
        window = _window(x, call, dims, kernel, stride, padding, dilation, ceil)
        if not with_indices:
            return _in_batch(g, call, x, dims, lambda batch: g.op("MaxPool", batch, **window))
        batch: Any = x if x.rank == dims + 2 else g.op("Unsqueeze", x, g.ints([0]))
        values, indices = g.ops("MaxPool", batch, outputs=2, **window)
        # ONNX counts over the whole tensor, PyTorch in each picture.
        area = 1
        for size in x.shape[-dims:]:
            area *= size
        indices = g.op("Mod", indices, g.ints(area))
        if x.rank == dims + 2:
            return [values, indices]
        return [g.op("Squeeze", each_, g.ints([0])) for each_ in (values, indices)]

    return translate


def _avg_pool(dims: int) -> Any:
    def translate(
        g: Writer,
        call: Call,
        x: Value,
        kernel: Any,
        stride: Any = (),
        padding: Any = 0,
        ceil: bool = False,
        count_include_pad: bool = True,
        divisor: int | None = None,
    ) -> str:
        window = _window(x, call, dims, kernel, stride, padding, 1, False)
        del window["dilations"]
        area = 1
        for size in window["kernel_shape"]:
            area *= size

        def make(batch: Any) -> str:
            counted = count_include_pad or divisor is not None
            out = g.op(
                "AveragePool",
                batch,
                count_include_pad=int(counted),
                ceil_mode=1 if ceil else None,
                **window,
            )
            if divisor is None:
                return out
            return g.op("Mul", out, g.scalar(area / divisor, x.dtype))

        return _in_batch(g, call, x, dims, make)

    return translate


for _dims in (1, 2, 3):
    aten(f"max_pool{_dims}d")(_max_pool(_dims, False))
    aten(f"max_pool{_dims}d_with_indices")(_max_pool(_dims, True))
    aten(f"avg_pool{_dims}d")(_avg_pool(_dims))


def _adaptive_avg(dims: int) -> Any:
    def translate(g: Writer, call: Call, x: Value, size: Any) -> str:
        sizes, out = x.shape[-dims:], call.out.shape[-dims:]
        if sizes == out:
            return g.name(x)
        if all(n == 1 for n in out):
            return _in_batch(g, call, x, dims, lambda batch: g.op("GlobalAveragePool", batch))
        if all(n % wanted == 0 for n, wanted in zip(sizes, out, strict=True)):
            kernel = [n // wanted for n, wanted in zip(sizes, out, strict=True)]
            return _in_batch(
                g,
                call,
                x,
                dims,
                lambda b: g.op("AveragePool", b, kernel_shape=kernel, strides=kernel),
            )
        return _averaged(g, x, sizes, out, dims)

    return translate


def _averaged(g: Writer, x: Value, sizes: Any, out: Any, dims: int) -> str:
    """Windows of unequal sizes, as products with averaging matrices, one an axis."""
    value: Any = x
    for axis in range(dims):
        matrix = g.tensor(_averages(sizes[axis], out[axis]).to(x.dtype))
        if axis == dims - 1:
            value = g.op("MatMul", value, g.op("Transpose", matrix, perm=[1, 0]))
        elif axis == dims - 2:
            value = g.op("MatMul", matrix, value)
        else:
            order = [*range(x.rank)]
            at = x.rank - dims + axis
            order[at], order[-1] = order[-1], order[at]
            turned = g.op("Transpose", value, perm=order)
            product = g.op("MatMul", turned, g.op("Transpose", matrix, perm=[1, 0]))
            value = g.op("Transpose", product, perm=order)
    return str(value)


def _averages(size: int, out: int) -> torch.Tensor:
    """Return the matrix, shape ``(out, size)``, that averages as PyTorch's adaptive pooling does."""
    matrix = torch.zeros(out, size)
    for k in range(out):
        start, stop = k * size // out, -(-(k + 1) * size // out)
        matrix[k, start:stop] = 1 / (stop - start)
    return matrix


for _dims in (1, 2, 3):
    aten(f"adaptive_avg_pool{_dims}d _adaptive_avg_pool{_dims}d")(_adaptive_avg(_dims))


def _adaptive_max(dims: int) -> Any:
    def translate(g: Writer, call: Call, x: Value, size: Any) -> list[str | None]:
        sizes, out = x.shape[-dims:], call.out.shape[-dims:]
        if any(n % wanted for n, wanted in zip(sizes, out, strict=True)):
            return [_max_by_parts(g, x, sizes, out, dims), None]
        kernel = [n // wanted for n, wanted in zip(sizes, out, strict=True)]
        pooled = _in_batch(
            g, call, x, dims, lambda b: g.op("MaxPool", b, kernel_shape=kernel, strides=kernel)
        )
        return [pooled, None]

    return translate


def _max_by_parts(g: Writer, x: Value, sizes: Any, out: Any, dims: int) -> str:
    value: Any = x
    for k in range(dims):
        axis = x.rank - dims + k
        parts = []
        for position in range(out[k]):
            start = position * sizes[k] // out[k]
            stop = -(-(position + 1) * sizes[k] // out[k])
            part = g.op("Slice", value, g.ints([start]), g.ints([stop]), g.ints([axis]))
            parts.append(g.op("ReduceMax", part, g.ints([axis]), keepdims=1))
        value = g.op("Concat", *parts, axis=axis)
    return str(value)


for _dims in (1, 2, 3):
    aten(f"adaptive_max_pool{_dims}d")(_adaptive_max(_dims))
