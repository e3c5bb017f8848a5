"""What PyTorch's TorchScript exporter translates in a way that loses what later steps need."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def registered(opset: int) -> Iterator[None]:
    """Let the exporter use this module's translations."""
    import torch

    exporter: Any = torch.onnx
    names = {
        "aten::unflatten": _unflatten,
        "aten::adaptive_avg_pool2d": _adaptive_avg_pool2d,
        "aten::rms_norm": _rms_norm,
        "aten::zeros_like": _zeros_like,
        "aten::empty_like": _zeros_like,
        "aten::ones_like": _ones_like,
        "aten::full_like": _full_like,
        "aten::new_zeros": _new_zeros,
        "aten::new_empty": _new_zeros,
        "aten::new_ones": _new_ones,
        "aten::new_full": _new_full,
    }
    for name, symbolic in names.items():
        exporter.register_custom_op_symbolic(name, symbolic, opset)
    try:
        yield
    finally:
        for name in names:
            exporter.unregister_custom_op_symbolic(name, opset)


def _unflatten(g: Any, x: Any, dim: Any, sizes: Any) -> Any:
    """A reshape to a constant shape; the exporter's own computes it, and the rank is lost.

    Packed attention projections take this way: ``unflatten(-1, (3, width))`` with a computed width.
    """
    from torch.onnx._internal.torchscript_exporter import symbolic_helper, symbolic_opset13

    helper: Any = symbolic_helper
    rank, shape = helper._get_tensor_rank(x), x.type().sizes()
    axis, parts = helper._maybe_get_const(dim, "i"), helper._maybe_get_const(sizes, "is")
    if not isinstance(parts, (list, tuple)) and helper._is_packed_list(sizes):
        parts = [helper._maybe_get_const(part, "i") for part in helper._unpack_list(sizes)]
    if rank is None or not isinstance(axis, int) or not isinstance(parts, (list, tuple)):
        return symbolic_opset13.unflatten(g, x, dim, sizes)
    axis %= rank
    known = [part if isinstance(part, int) else -1 for part in parts]
    behind = list(shape[axis + 1 :]) if shape is not None else [None] * (rank - axis - 1)
    if known.count(-1) > 1 or any(size is None for size in behind):
        return symbolic_opset13.unflatten(g, x, dim, sizes)
    before = list(shape[:axis]) if shape is not None else [None] * axis
    if any(size is None for size in before):
        # Sizes may be copied; the exporter then wants one part left to be computed.
        before = [0] * axis
        known = known if -1 in known else [*known[:-1], -1]
    return helper._reshape_helper(g, x, [*before, *known, *behind])


def _adaptive_avg_pool2d(g: Any, x: Any, output_size: Any) -> Any:
    """Windows of unequal sizes, which the exporter refuses, as products with averaging matrices."""
    import torch
    from torch.onnx._internal.torchscript_exporter import symbolic_helper, symbolic_opset9

    helper: Any = symbolic_helper
    shape, wanted = x.type().sizes(), helper._maybe_get_const(output_size, "is")
    spatial: list[Any] = list(shape[-2:]) if shape is not None else [None, None]
    static = isinstance(wanted, (list, tuple)) and len(wanted) == 2 and None not in spatial
    if not static or all(size % out == 0 for size, out in zip(spatial, wanted, strict=True)):
        opset9: Any = symbolic_opset9
        own = opset9._adaptive_pool(
            "adaptive_avg_pool2d", "AveragePool", torch.nn.modules.utils._pair
        )
        return own(g, x, output_size)
    rows, columns = (_averages(size, out) for size, out in zip(spatial, wanted, strict=True))
    pooled = g.op("MatMul", g.op("Constant", value_t=rows), x)
    return g.op("MatMul", pooled, g.op("Constant", value_t=columns.t().contiguous()))


def _averages(size: int, out: int) -> Any:
    """Return the matrix, shape ``(out, size)``, that averages as PyTorch's adaptive pooling does."""
    import torch

    matrix = torch.zeros(out, size)
    for k in range(out):
        start, stop = k * size // out, -(-(k + 1) * size // out)
        matrix[k, start:stop] = 1 / (stop - start)
    return matrix


def _rms_norm(g: Any, x: Any, normalized_shape: Any, weight: Any, eps: Any) -> Any:
    """Root-mean-square normalisation, which opset 20 does not have as one operator."""
    import torch
    from torch.onnx._internal.torchscript_exporter import symbolic_helper

    helper: Any = symbolic_helper
    shape, epsilon = helper._get_const(normalized_shape, "is", "normalized_shape"), None
    if not helper._is_none(eps):
        epsilon = helper._get_const(eps, "f", "eps")
    axes = g.op("Constant", value_t=torch.arange(-len(shape), 0))
    mean = g.op("ReduceMean", g.op("Mul", x, x), axes, keepdims_i=1)
    small = torch.finfo(torch.float32).eps if epsilon is None else float(epsilon)
    shifted = g.op("Add", mean, g.op("Constant", value_t=torch.tensor(small)))
    out = g.op("Div", x, g.op("Sqrt", shifted))
    return out if helper._is_none(weight) else g.op("Mul", out, weight)


def _like(g: Any, x: Any, value: Any, dtype: Any) -> Any | None:
    """One number in the shape of ``x``, read off it as the program runs.

    The exporter's own writes the shape down, and that the two are equally large is lost. ``None``
    where the number or the dtype is not known.
    """
    import torch
    from torch.onnx._internal.torchscript_exporter import _type_utils, symbolic_helper

    helper, types = symbolic_helper, _type_utils.JitScalarType
    number = helper._maybe_get_const(value, "t") if helper._is_value(value) else value
    if helper._is_value(number) or helper._get_tensor_rank(x) is None:
        return None
    kind = (
        types.from_value(x)
        if helper._is_none(dtype)
        else types(helper._get_const(dtype, "i", "dtype"))
    )
    filled = torch.tensor(float(number), dtype=kind.dtype())
    return g.op("Expand", g.op("Constant", value_t=filled), g.op("Shape", x))


def _zeros_like(g: Any, x: Any, dtype: Any = None, *options: Any) -> Any:
    from torch.onnx._internal.torchscript_exporter import symbolic_opset9

    own: Any = symbolic_opset9.zeros_like
    return _like(g, x, 0.0, dtype) or own(g, x, dtype, *options)


def _ones_like(g: Any, x: Any, dtype: Any = None, *options: Any) -> Any:
    from torch.onnx._internal.torchscript_exporter import symbolic_opset9

    own: Any = symbolic_opset9.ones_like
    return _like(g, x, 1.0, dtype) or own(g, x, dtype, *options)


def _full_like(g: Any, x: Any, value: Any, dtype: Any = None, *options: Any) -> Any:
    from torch.onnx._internal.torchscript_exporter import symbolic_opset9

    own: Any = symbolic_opset9.full_like
    return _like(g, x, value, dtype) or own(g, x, value, dtype, *options)


def _is_shape_of(x: Any, sizes: Any) -> bool:
    """Tell whether sizes that are written down are those of ``x``: ``x.new_zeros(x.shape)``."""
    from torch.onnx._internal.torchscript_exporter import symbolic_helper

    helper: Any = symbolic_helper
    wanted = helper._maybe_get_const(sizes, "is")
    if not isinstance(wanted, (list, tuple)) and helper._is_packed_list(sizes):
        wanted = [helper._maybe_get_const(size, "i") for size in helper._unpack_list(sizes)]
    return isinstance(wanted, (list, tuple)) and list(wanted) == list(x.type().sizes() or ())


def _new_zeros(g: Any, x: Any, sizes: Any, dtype: Any = None, *options: Any) -> Any:
    from torch.onnx._internal.torchscript_exporter import symbolic_opset9

    own: Any = symbolic_opset9.new_zeros
    made = _like(g, x, 0.0, dtype) if _is_shape_of(x, sizes) else None
    return made or own(g, x, sizes, dtype, *options)


def _new_ones(g: Any, x: Any, sizes: Any, dtype: Any = None, *options: Any) -> Any:
    from torch.onnx._internal.torchscript_exporter import symbolic_opset9

    own: Any = symbolic_opset9.new_ones
    made = _like(g, x, 1.0, dtype) if _is_shape_of(x, sizes) else None
    return made or own(g, x, sizes, dtype, *options)


def _new_full(g: Any, x: Any, sizes: Any, value: Any, dtype: Any = None, *options: Any) -> Any:
    from torch.onnx._internal.torchscript_exporter import symbolic_opset9

    own: Any = symbolic_opset9.new_full
    made = _like(g, x, value, dtype) if _is_shape_of(x, sizes) else None
    return made or own(g, x, sizes, value, dtype, *options)
