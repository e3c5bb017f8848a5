"""Sums, means, extremes and what is counted from them."""

from __future__ import annotations

from typing import Any

import torch

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import ELEMENTS, Writer


def axes_of(x: Value, dim: Any) -> list[int]:
    """Return the axes that are reduced; all where none is stated."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(x.rank))
    return sorted({int(d) % max(x.rank, 1) for d in ([dim] if isinstance(dim, int) else dim)})


def reduced(
    g: Writer, onnx_type: str, value: Any, axes: list[int], keepdim: bool, **known: Any
) -> str:
    return g.op(
        onnx_type,
        value,
        g.ints(axes),
        keepdims=int(keepdim),
        noop_with_empty_axes=1 if not axes else None,
        **known,
    )


def _reduction(onnx_type: str) -> Any:
    def translate(
        g: Writer, call: Call, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None
    ) -> str:
        kind = call.out.dtype
        name = g.operand(x, kind)
        return reduced(g, onnx_type, name, axes_of(x, dim), keepdim)

    return translate


aten("sum")(_reduction("ReduceSum"))
aten("mean")(_reduction("ReduceMean"))
aten("amax max.default")(_reduction("ReduceMax"))
aten("amin min.default")(_reduction("ReduceMin"))
aten("prod")(_reduction("ReduceProd"))
aten("logsumexp")(_reduction("ReduceLogSumExp"))


@aten("nansum")
def nansum(
    g: Writer, call: Call, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> str:
    plain = g.op("Where", g.op("IsNaN", x), g.scalar(0, x.dtype), x)
    return reduced(g, "ReduceSum", plain, axes_of(x, dim), keepdim)


def _quantified(onnx_type: str) -> Any:
    def translate(g: Writer, call: Call, x: Value, dim: Any = None, keepdim: bool = False) -> str:
        held = x if x.dtype is torch.bool else g.op("Cast", x, to=9)
        found = reduced(g, onnx_type, g.op("Cast", held, to=6), axes_of(x, dim), keepdim)
        return g.op("Cast", found, to=9)

    return translate


aten("any")(_quantified("ReduceMax"))
aten("all")(_quantified("ReduceMin"))


def _arg(onnx_type: str) -> Any:
    def translate(
        g: Writer, call: Call, x: Value, dim: int | None = None, keepdim: bool = False
    ) -> str:
        value: Any = x if x.dtype is not torch.bool else g.op("Cast", x, to=6)
        if dim is None:
            flat = g.op("Reshape", value, g.ints([-1]))
            out = g.op(onnx_type, flat, axis=0, keepdims=0)
            return g.op("Reshape", out, g.ints([1] * x.rank)) if keepdim else out
        return g.op(onnx_type, value, axis=dim % max(x.rank, 1), keepdims=int(keepdim))

    return translate


aten("argmax")(_arg("ArgMax"))
aten("argmin")(_arg("ArgMin"))


def _extreme(reduce: str, arg: str) -> Any:
    def translate(g: Writer, call: Call, x: Value, dim: int, keepdim: bool = False) -> list[str]:
        axis = dim % max(x.rank, 1)
        values = reduced(g, reduce, x, [axis], keepdim)
        return [values, g.op(arg, x, axis=axis, keepdims=int(keepdim))]

    return translate


aten("max.dim")(_extreme("ReduceMax", "ArgMax"))
aten("min.dim")(_extreme("ReduceMin", "ArgMin"))


@aten("aminmax")
def aminmax(
    g: Writer, call: Call, x: Value, dim: int | None = None, keepdim: bool = False
) -> list[str]:
    axes = axes_of(x, dim)
    return [reduced(g, kind, x, axes, keepdim) for kind in ("ReduceMin", "ReduceMax")]


def _moments(g: Writer, x: Value, dim: Any, correction: Any, keepdim: bool) -> tuple[str, str]:
    """Return variance and mean over axes."""
    axes = axes_of(x, dim)
    count = 1
    for axis in axes:
        count *= x.shape[axis] if x.rank else 1
    kept = tuple(1 if k in axes else n for k, n in enumerate(x.shape))
    mean = reduced(g, "ReduceMean", x, axes, True, shape=kept, dtype=x.dtype)
    centred = g.op("Sub", x, mean, shape=x.shape, dtype=x.dtype)
    squares = g.op("Mul", centred, centred, shape=x.shape, dtype=x.dtype)
    spread = reduced(g, "ReduceMean", squares, axes, keepdim)
    if correction:
        spread = _unbiased(g, x, axes, spread, count, correction)
    if not keepdim:
        mean = g.op("Squeeze", mean, g.ints(axes)) if axes else mean
    return spread, mean


def _unbiased(g: Writer, x: Value, axes: Any, spread: str, count: int, correction: Any) -> str:
    """Return a mean of squares times n over n less ``correction``, n being read off ``x``.

    Of fewer slices the variance counts fewer, as PyTorch's does.
    """
    if count <= correction or not axes:
        return g.op("Mul", spread, g.scalar(float("nan"), x.dtype))
    sizes = g.op("Shape", x, shape=(x.rank,), dtype=torch.int64)
    along = g.op("Gather", sizes, g.ints(axes), shape=(len(axes),), dtype=torch.int64)
    product = g.op("ReduceProd", along, keepdims=0, shape=(), dtype=torch.int64)
    number = g.cast(product, x.dtype, torch.int64)
    less = g.op("Sub", number, g.scalar(correction, x.dtype))
    return g.op("Div", g.op("Mul", spread, number), less)


def _correction(call: Call, correction: Any, unbiased: Any) -> Any:
    if call.overload.startswith("correction"):
        return 1 if correction is None else correction
    return 1 if unbiased is None else int(unbiased)


def _variance(root: bool, both: bool) -> Any:
    def translate(
        g: Writer,
        call: Call,
        x: Value,
        dim: Any = None,
        unbiased: Any = None,
        keepdim: bool = False,
        correction: Any = None,
    ) -> Any:
        if isinstance(dim, bool):  # the overload of (tensor, unbiased)
            dim, unbiased = None, dim
        spread, mean = _moments(g, x, dim, _correction(call, correction, unbiased), keepdim)
        spread = g.op("Sqrt", spread) if root else spread
        return [spread, mean] if both else spread

    return translate


aten("var")(_variance(False, False))
aten("std")(_variance(True, False))
aten("var_mean")(_variance(False, True))
aten("std_mean")(_variance(True, True))


@aten(
    "linalg_vector_norm norm.ScalarOpt_dim norm.Scalar norm.ScalarOpt_dtype norm.ScalarOpt_dim_dtype"
)
def norm(
    g: Writer,
    call: Call,
    x: Value,
    order: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    dtype: Any = None,
) -> str:
    order = 2 if order is None else order
    axes, kind = axes_of(x, dim), call.out.dtype
    value = g.operand(x, kind)
    if order in (1, 2):
        return reduced(g, f"ReduceL{int(order)}", value, axes, keepdim)
    size = g.op("Abs", value)
    if order == float("inf"):
        return reduced(g, "ReduceMax", size, axes, keepdim)
    if order == float("-inf"):
        return reduced(g, "ReduceMin", size, axes, keepdim)
    if order == 0:
        return reduced(g, "ReduceSum", g.op("Cast", g.op("Cast", size, to=9), to=1), axes, keepdim)
    powers = g.op("Pow", size, g.scalar(float(order), kind))
    return g.op("Pow", reduced(g, "ReduceSum", powers, axes, keepdim), g.scalar(1 / order, kind))


@aten("histc")
def histc(g: Writer, call: Call, x: Value, bins: int = 100, min: Any = 0, max: Any = 0) -> str:
    """How many values fall between equal bounds; those outside are not counted."""
    kind = torch.float32
    value = g.op("Reshape", g.operand(x, kind), g.ints([-1, 1]))
    low, high = (float(min), float(max))
    edges = torch.linspace(low, high, bins + 1, dtype=kind)
    upper = edges[1:].clone()
    upper[-1] = torch.nextafter(upper[-1], torch.tensor(float("inf")))
    inside = g.op(
        "And",
        g.op("GreaterOrEqual", value, g.tensor(edges[:-1].reshape(1, -1))),
        g.op("Less", value, g.tensor(upper.reshape(1, -1))),
    )
    return g.op("ReduceSum", g.op("Cast", inside, to=_element(call)), g.ints([0]), keepdims=0)


@aten("bincount")
def bincount(
    g: Writer, call: Call, x: Value, weights: Value | None = None, minlength: int = 0
) -> str:
    classes = torch.arange(call.out.shape[0], dtype=x.dtype).reshape(1, -1)
    equal = g.op("Equal", g.op("Reshape", x, g.ints([-1, 1])), g.tensor(classes))
    counted = g.op("Cast", equal, to=_element(call))
    if weights is not None:
        counted = g.op(
            "Mul", counted, g.op("Reshape", g.operand(weights, call.out.dtype), g.ints([-1, 1]))
        )
    return g.op("ReduceSum", counted, g.ints([0]), keepdims=0)


def _element(call: Call) -> int:
    return ELEMENTS[call.out.dtype][0]
