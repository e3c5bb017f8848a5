"""Complex numbers, which ONNX hardly computes with: as pairs of real ones along a last axis.

``view_as_complex`` and ``view_as_real`` change nothing then. Where elements only move, the operator is
that of the pairs, with the axes it names counted from the front; products and Fourier transforms have
their rules here. ONNX's own transform keeps pairs too: https://onnx.ai/onnx/operators/onnx__DFT.html.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchpruner_core.capture.registry import aten, translation
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer

Rule = Callable[..., Any]

_RULES: dict[str, Rule] = {}


def complex_translation(call: Call) -> Rule | None:
    """Return the translation of a call with complex numbers among its tensors, or ``None``."""
    return _RULES.get(call.name)


def is_complex(call: Call) -> bool:
    """Return whether a call reads or computes complex numbers."""
    return any(value.dtype.is_complex for value in (*call.outputs, *call.reads()))


def _complex(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for text in names:
            for name in text.split():
                _RULES[f"aten::{name}"] = rule
                if translation(f"aten::{name}", "") is None:
                    aten(name)(rule)  # so that the recorder keeps it whole
        return rule

    return register


# From real numbers and back


@_complex("view_as_real view_as_complex resolve_conj resolve_neg")
def as_it_is(g: Writer, call: Call, x: Value) -> str:
    return g.name(x)


def _joined(g: Writer, real: Any, imaginary: Any) -> str:
    last = g.ints([-1])
    parts = [g.op("Unsqueeze", part, last) for part in (real, imaginary)]
    return g.op("Concat", *parts, axis=-1)


def _parts(g: Writer, value: Value) -> tuple[Value, Value]:
    """Return the real and the imaginary part."""
    found = []
    for k in (0, 1):
        part = _proxy(value, value.shape)
        g.bind(part, g.op("Gather", value, g.ints(k), axis=-1))
        found.append(part)
    return found[0], found[1]


def _proxy(value: Value, shape: Sequence[int]) -> Value:
    return Value(0, tuple(shape), value.dtype.to_real(), "computed")


@_complex("complex")
def from_parts(g: Writer, call: Call, real: Value, imaginary: Value) -> str:
    return _joined(g, *_broadcast(g, call, real, imaginary))


def _broadcast(g: Writer, call: Call, *values: Value) -> list[Any]:
    shape = call.out.shape
    return [
        value if value.shape == shape else g.op("Expand", value, g.ints(list(shape)))
        for value in values
    ]


@_complex("_to_copy")
def converted(g: Writer, call: Call, x: Value, **rest: Any) -> Any:
    real = call.out.dtype.to_real()
    if x.dtype.is_complex:
        pairs = _proxy(x, (*x.shape, 2))
        g.bind(pairs, g.name(x))
        return g.cast(pairs, real) if call.out.dtype.is_complex else None
    pair = g.op("Unsqueeze", g.operand(x, real), g.ints([-1]))
    return g.op("Pad", pair, g.ints([0] * (2 * x.rank + 1) + [1]))


@_complex("polar")
def polar(g: Writer, call: Call, length: Value, angle: Value) -> str:
    length, angle = _broadcast(g, call, length, angle)
    real = g.op("Mul", length, g.op("Cos", angle))
    return _joined(g, real, g.op("Mul", length, g.op("Sin", angle)))


@_complex("_conj _conj_physical conj_physical")
def conjugate(g: Writer, call: Call, x: Value) -> str:
    return g.op("Mul", x, _signs(g, x))


def _signs(g: Writer, x: Value) -> str:
    return g.tensor(torch.tensor([1.0, -1.0], dtype=x.dtype.to_real()))


@_complex("abs")
def absolute(g: Writer, call: Call, x: Value) -> str:
    return g.op("ReduceL2", x, g.ints([-1]), keepdims=0)


# Arithmetic


@_complex("mul")
def product(g: Writer, call: Call, x: Value, y: Any) -> Any:
    x, y = (y, x) if not x.dtype.is_complex else (x, y)
    real = call.out.dtype.to_real()
    if isinstance(y, Value) and not y.dtype.is_complex:
        return g.op("Mul", x, g.op("Unsqueeze", g.operand(y, real), g.ints([-1])))
    if not isinstance(y, Value) and not isinstance(y, complex):
        return g.op("Mul", x, g.scalar(float(y), real))
    a, b = _parts(g, x)
    if isinstance(y, Value):
        c, d = _parts(g, y)
        factors: tuple[Any, Any] = (g.name(c), g.name(d))
    else:
        factors = (g.scalar(y.real, real), g.scalar(y.imag, real))
    return _multiplied(g, lambda left, right: g.op("Mul", left, right), (a, b), factors)


def _multiplied(
    g: Writer, times: Callable[[Any, Any], str], x: tuple[Any, Any], y: tuple[Any, Any]
) -> str:
    """Return (a + bi)(c + di) for a product that is linear in both factors."""
    (a, b), (c, d) = x, y
    real = g.op("Sub", times(a, c), times(b, d))
    return _joined(g, real, g.op("Add", times(a, d), times(b, c)))


@_complex("div")
def quotient(g: Writer, call: Call, x: Value, y: Any) -> Any:
    real = call.out.dtype.to_real()
    if not isinstance(y, Value) and not isinstance(y, complex):
        return g.op("Div", x, g.scalar(float(y), real))
    if isinstance(y, Value) and x.dtype.is_complex and not y.dtype.is_complex:
        return g.op("Div", x, g.op("Unsqueeze", g.operand(y, real), g.ints([-1])))
    return None


@_complex("bmm mm matmul einsum")
def contraction(g: Writer, call: Call, *args: Any) -> Any:
    """A product of two complex tensors, as four of real ones."""
    front, values = args[:-2], list(args[-2:])
    if call.name == "aten::einsum":
        front, values = args[:1], list(args[1])
    if len(values) != 2 or not all(value.dtype.is_complex for value in values):
        return None
    rule = translation(call.name, call.overload)
    assert rule is not None

    def times(left: Value, right: Value) -> str:
        out = _proxy(call.out, call.out.shape)
        pair = ([left, right],) if front else (left, right)
        inner = Call(call.name, call.overload, (*front, *pair), {}, call.module)
        inner.outputs = [out]
        found: str = rule(g, inner, *inner.args)
        return found

    return _multiplied(g, times, _parts(g, values[0]), _parts(g, values[1]))


# Elements that move

_SUMS = ("aten::add", "aten::sub")

Fix = Callable[[int, tuple[Any, ...]], tuple[Any, ...]]
"""``(rank, arguments without the tensor)`` to the arguments for the pairs, whose last axis is one more."""


def _moved(fix: Fix) -> Rule:
    def rule(g: Writer, call: Call, *args: Any, **kwargs: Any) -> Any:
        plain = translation(call.name, call.overload)
        first = args[0][0] if isinstance(args[0], list) else args[0]
        if plain is None or kwargs.keys() - {"memory_format", "implicit", "non_blocking"}:
            return None
        if not all(v.dtype.is_complex for v in (*call.reads(), *call.outputs)):
            return None
        if call.name in _SUMS and not isinstance(args[1], Value):
            return None
        given = [_pairs(g, arg) for arg in (args[0], *fix(len(first.shape), args[1:]))]
        inner = Call(call.name, call.overload, tuple(given), kwargs, call.module)
        inner.outputs = [_proxy(value, (*value.shape, 2)) for value in call.outputs]
        return plain(g, inner, *given, **kwargs)

    return rule


def _pairs(g: Writer, arg: Any) -> Any:
    if isinstance(arg, list):
        return [_pairs(g, each) for each in arg]
    if not isinstance(arg, Value):
        return arg
    pair = _proxy(arg, (*arg.shape, 2))
    g.bind(pair, g.name(arg))
    return pair


def _axis_first(rank: int, rest: tuple[Any, ...]) -> tuple[Any, ...]:
    return (rest[0] % rank if rest else 0, *rest[1:])


def _axes_first(rank: int, rest: tuple[Any, ...]) -> tuple[Any, ...]:
    dims = rest[0] if rest else []
    return ([d % rank for d in ([dims] if isinstance(dims, int) else dims)], *rest[1:])


def _size_first(rank: int, rest: tuple[Any, ...]) -> tuple[Any, ...]:
    return ([*rest[0], 2], *rest[1:])


_MOVES: dict[str, Fix] = {
    "add sub neg clone copy": lambda rank, rest: rest,
    "view _unsafe_view reshape expand": _size_first,
    "select slice cat split split_with_sizes chunk unbind narrow": _axis_first,
    "unsqueeze stack": lambda rank, rest: (rest[0] % (rank + 1) if rest else 0, *rest[1:]),
    "squeeze flip": _axes_first,
    "transpose swapaxes swapdims": lambda rank, rest: (rest[0] % rank, rest[1] % rank),
    "permute": lambda rank, rest: ([*(d % rank for d in rest[0]), rank],),
    "slice_scatter select_scatter": lambda rank, rest: (rest[0], rest[1] % rank, *rest[2:]),
    "roll": lambda rank, rest: (rest[0], [d % rank for d in rest[1]]),
    "constant_pad_nd": lambda rank, rest: ([0, 0, *rest[0]], *rest[1:]),
}

for _names, _fix in _MOVES.items():
    for _name in _names.split():
        _RULES[f"aten::{_name}"] = _moved(_fix)


@_complex("zeros_like empty_like zero new_zeros new_empty")
def zeros_like(g: Writer, call: Call, x: Value, *rest: Any, **more: Any) -> Any:
    if call.out.dtype.is_complex and (call.out.shape != x.shape or not x.dtype.is_complex):
        return g.tensor(torch.zeros(call.out.shape, dtype=call.out.dtype))
    plain = translation("aten::zeros_like", "")
    if plain is None or not call.out.dtype.is_complex:
        return None
    pairs = _pairs(g, x)
    inner = Call(call.name, call.overload, (pairs,), {}, call.module)
    inner.outputs = [_proxy(call.out, pairs.shape)]
    return plain(g, inner, pairs)


# Fourier transforms

BY_ROOT, BY_COUNT = 1, 2
"""PyTorch's ``fft_norm_mode``; 0 leaves the sums as they are."""


def _transformed(g: Writer, x: str, dim: int, *, inverse: bool, half: bool = False) -> str:
    return g.op("DFT", x, None, g.ints(dim), inverse=int(inverse), onesided=int(half))


def _scaled(g: Writer, x: str, count: int, mode: int, dtype: torch.dtype, *, inverse: bool) -> str:
    """Scale a transform of ``count`` elements; ONNX divides an inverse one by their number."""
    factor = {BY_ROOT: 1 / math.sqrt(count), BY_COUNT: 1 / count}.get(mode, 1.0)
    factor *= count if inverse else 1
    return x if factor == 1 else g.op("Mul", x, g.scalar(factor, dtype))


@_complex("_fft_c2c")
def transform(
    g: Writer, call: Call, x: Value, dims: Sequence[int], mode: int, forward: bool
) -> str:
    found = g.name(x)
    for dim in dims:
        found = _transformed(g, found, dim % x.rank, inverse=not forward)
    count = math.prod(x.shape[d] for d in dims)
    return _scaled(g, found, count, mode, x.dtype.to_real(), inverse=not forward)


@_complex("_fft_r2c")
def transform_of_reals(
    g: Writer, call: Call, x: Value, dims: Sequence[int], mode: int, onesided: bool
) -> str:
    found = g.op("Unsqueeze", x, g.ints([-1]))
    last, *others = [d % x.rank for d in reversed(dims)]
    found = _transformed(g, found, last, inverse=False, half=onesided)
    for dim in others:
        found = _transformed(g, found, dim, inverse=False)
    count = math.prod(x.shape[d] for d in dims)
    return _scaled(g, found, count, mode, x.dtype, inverse=False)


@_complex("_fft_c2r")
def transform_to_reals(
    g: Writer, call: Call, x: Value, dims: Sequence[int], mode: int, size: int
) -> str:
    """The half of a spectrum that is given has the other half as its mirror image."""
    *others, last = [d % x.rank for d in dims]
    found = g.name(x)
    for dim in others:
        found = _transformed(g, found, dim, inverse=True)
    kept, real = size // 2 + 1, x.dtype.to_real()
    front = g.op("Slice", found, g.ints([0]), g.ints([kept]), g.ints([last]))
    if size > 2:
        bounds = [g.ints([n]) for n in (size - kept, 0, last, -1)]
        mirrored = g.op("Slice", found, *bounds)
        front = g.op("Concat", front, g.op("Mul", mirrored, _signs(g, x)), axis=last)
    whole = _transformed(g, front, last, inverse=True)
    count = math.prod(call.out.shape[d] for d in dims)
    scaled = _scaled(g, whole, count, mode, real, inverse=True)
    return g.op("Gather", scaled, g.ints(0), axis=-1)
