"""Operators that work element by element: arithmetic, comparisons, activations."""

from __future__ import annotations

import math
from typing import Any

import torch

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer

_UNARY = {
    "abs": "Abs",
    "acos": "Acos",
    "acosh": "Acosh",
    "asin": "Asin",
    "asinh": "Asinh",
    "atan": "Atan",
    "atanh": "Atanh",
    "ceil": "Ceil",
    "cos": "Cos",
    "cosh": "Cosh",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "hardswish": "HardSwish",
    "isnan": "IsNaN",
    "log": "Log",
    "mish": "Mish",
    "neg": "Neg",
    "reciprocal": "Reciprocal",
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "sign": "Sign",
    "sin": "Sin",
    "sinh": "Sinh",
    "sqrt": "Sqrt",
    "tan": "Tan",
    "tanh": "Tanh",
}


def _unary(onnx_type: str) -> Any:
    def translate(g: Writer, call: Call, x: Value) -> str:
        return g.op(onnx_type, x if onnx_type == "IsNaN" else g.operand(x, call.out.dtype))

    return translate


for _name, _type in _UNARY.items():
    aten(_name)(_unary(_type))

_INEXACT = (torch.float16, torch.bfloat16)


def common_dtype(*operands: Any) -> torch.dtype:
    """Return the dtype in which PyTorch computes with these tensors and numbers."""
    found: Any = None
    for each in operands:
        if type(each) is Value:
            each = torch.empty((1,) * min(each.rank, 1), dtype=each.dtype)
        found = (
            each
            if found is None
            else torch.empty((1,), dtype=torch.result_type(found, each))
            if _ranked(found) or _ranked(each)
            else torch.empty((), dtype=torch.result_type(found, each))
        )
    return found.dtype if isinstance(found, torch.Tensor) else torch.tensor(found).dtype


def _ranked(each: Any) -> bool:
    return isinstance(each, torch.Tensor) and each.dim() > 0


def arithmetic(g: Writer, call: Call, onnx_type: str, a: Any, b: Any) -> str:
    """Return ``a <op> b`` in the dtype of the call's output."""
    dtype = call.out.dtype
    if dtype is torch.bool:
        return g.op(
            {"Add": "Or", "Mul": "And"}.get(onnx_type, "Xor"),
            g.operand(a, dtype),
            g.operand(b, dtype),
        )
    return g.op(onnx_type, g.operand(a, dtype), g.operand(b, dtype))


def _scaled(g: Writer, dtype: torch.dtype, value: Any, alpha: Any) -> Any:
    if alpha == 1:
        return value
    if not isinstance(value, Value):
        return value * alpha
    return g.op(
        "Mul", g.operand(value, dtype), g.scalar(alpha, dtype), shape=value.shape, dtype=dtype
    )


@aten("add")
def add(g: Writer, call: Call, x: Any, y: Any, alpha: Any = 1) -> str:
    return _linear_sum(g, call, "Add", x, y, alpha)


@aten("sub subtract")
def sub(g: Writer, call: Call, x: Any, y: Any, alpha: Any = 1) -> str:
    return _linear_sum(g, call, "Sub", x, y, alpha)


def _linear_sum(g: Writer, call: Call, onnx_type: str, x: Any, y: Any, alpha: Any) -> str:
    dtype = call.out.dtype
    y = _scaled(g, dtype, y, alpha)
    left = g.operand(x, dtype)
    if dtype is torch.bool:
        return g.op("Or", left, g.operand(y, dtype))
    return g.op(onnx_type, left, y if type(y) is str else g.operand(y, dtype))


@aten("rsub")
def rsub(g: Writer, call: Call, x: Any, y: Any, alpha: Any = 1) -> str:
    dtype = call.out.dtype
    scaled = _scaled(g, dtype, x, alpha)
    return g.op(
        "Sub", g.operand(y, dtype), scaled if type(scaled) is str else g.operand(scaled, dtype)
    )


@aten("mul multiply")
def mul(g: Writer, call: Call, x: Any, y: Any) -> str:
    return arithmetic(g, call, "Mul", x, y)


@aten("div divide true_divide")
def div(g: Writer, call: Call, x: Any, y: Any, rounding_mode: str | None = None) -> str:
    if rounding_mode is None:
        return arithmetic(g, call, "Div", x, y)
    dtype = call.out.dtype
    if rounding_mode == "floor":
        return _floor_divide(g, call, x, y)
    if not dtype.is_floating_point:
        return arithmetic(g, call, "Div", x, y)
    quotient = g.op("Div", g.operand(x, dtype), g.operand(y, dtype))
    return g.op("Mul", g.op("Sign", quotient), g.op("Floor", g.op("Abs", quotient)))


@aten("floor_divide")
def _floor_divide(g: Writer, call: Call, x: Any, y: Any) -> str:
    dtype = call.out.dtype
    if dtype.is_floating_point:
        return g.op("Floor", g.op("Div", g.operand(x, dtype), g.operand(y, dtype)))
    a, b = g.operand(x, dtype), g.operand(y, dtype)
    rest = g.op("Mod", a, b)  # has the divisor's sign
    return g.op("Div", g.op("Sub", a, rest), b)


@aten("remainder")
def remainder(g: Writer, call: Call, x: Any, y: Any) -> str:
    dtype = call.out.dtype
    a, b = g.operand(x, dtype), g.operand(y, dtype)
    if not dtype.is_floating_point:
        return g.op("Mod", a, b)
    return g.op("Sub", a, g.op("Mul", g.op("Floor", g.op("Div", a, b)), b))


@aten("fmod")
def fmod(g: Writer, call: Call, x: Any, y: Any) -> str:
    dtype = call.out.dtype
    return g.op("Mod", g.operand(x, dtype), g.operand(y, dtype), fmod=1)


@aten("pow float_power")
def power(g: Writer, call: Call, x: Any, y: Any) -> str:
    dtype = call.out.dtype
    if y == 2 and type(x) is Value:
        base = g.operand(x, dtype)
        return g.op("Mul", base, base)
    if y == 0.5:
        return g.op("Sqrt", g.operand(x, dtype))
    return g.op("Pow", g.operand(x, dtype), g.operand(y, dtype))


@aten("square")
def square(g: Writer, call: Call, x: Value) -> str:
    return g.op("Mul", x, x)


@aten("rsqrt")
def rsqrt(g: Writer, call: Call, x: Value) -> str:
    root = g.op("Sqrt", g.operand(x, call.out.dtype), shape=x.shape, dtype=call.out.dtype)
    return g.op("Reciprocal", root)


@aten("maximum max.other fmax")
def maximum(g: Writer, call: Call, x: Any, y: Any) -> str:
    return arithmetic(g, call, "Max", x, y)


@aten("minimum min.other fmin")
def minimum(g: Writer, call: Call, x: Any, y: Any) -> str:
    return arithmetic(g, call, "Min", x, y)


@aten("addcmul")
def addcmul(g: Writer, call: Call, x: Value, a: Value, b: Value, value: Any = 1) -> str:
    product = g.op("Mul", a, b)
    scaled = product if value == 1 else g.op("Mul", product, g.scalar(value, call.out.dtype))
    return g.op("Add", x, scaled)


@aten("addcdiv")
def addcdiv(g: Writer, call: Call, x: Value, a: Value, b: Value, value: Any = 1) -> str:
    quotient = g.op("Div", a, b)
    scaled = quotient if value == 1 else g.op("Mul", quotient, g.scalar(value, call.out.dtype))
    return g.op("Add", x, scaled)


@aten("lerp")
def lerp(g: Writer, call: Call, x: Value, y: Value, weight: Any) -> str:
    return g.op("Add", x, g.op("Mul", g.op("Sub", y, x), g.operand(weight, call.out.dtype)))


@aten("atan2")
def atan2(g: Writer, call: Call, y: Value, x: Value) -> str:
    dtype = call.out.dtype
    a, b = g.operand(y, dtype), g.operand(x, dtype)
    zero, pi = g.scalar(0.0, dtype), g.scalar(math.pi, dtype)
    slope = g.op("Atan", g.op("Div", a, b))
    turned = g.op("Where", g.op("Less", a, zero), g.op("Sub", slope, pi), g.op("Add", slope, pi))
    return g.op("Where", g.op("Less", b, zero), turned, slope)


@aten("copysign")
def copysign(g: Writer, call: Call, x: Any, y: Any) -> str:
    dtype = call.out.dtype
    size = g.op("Abs", g.operand(x, dtype))
    negative = g.op("Less", g.operand(y, dtype), g.scalar(0, dtype))
    return g.op("Where", negative, g.op("Neg", size), size)


# Other functions of one tensor


@aten("expm1")
def expm1(g: Writer, call: Call, x: Value) -> str:
    return g.op("Sub", g.op("Exp", x), g.scalar(1, x.dtype))


@aten("log1p")
def log1p(g: Writer, call: Call, x: Value) -> str:
    return g.op("Log", g.op("Add", x, g.scalar(1, x.dtype)))


@aten("log2")
def log2(g: Writer, call: Call, x: Value) -> str:
    return g.op(
        "Div", g.op("Log", g.operand(x, call.out.dtype)), g.scalar(math.log(2), call.out.dtype)
    )


@aten("log10")
def log10(g: Writer, call: Call, x: Value) -> str:
    return g.op(
        "Div", g.op("Log", g.operand(x, call.out.dtype)), g.scalar(math.log(10), call.out.dtype)
    )


@aten("exp2")
def exp2(g: Writer, call: Call, x: Value) -> str:
    return g.op("Pow", g.scalar(2, call.out.dtype), g.operand(x, call.out.dtype))


@aten("special_erfc erfc")
def erfc(g: Writer, call: Call, x: Value) -> str:
    return g.op("Sub", g.scalar(1, x.dtype), g.op("Erf", x))


@aten("logit")
def logit(g: Writer, call: Call, x: Value, eps: float | None = None) -> str:
    inner = (
        x if eps is None else g.op("Clip", x, g.scalar(eps, x.dtype), g.scalar(1 - eps, x.dtype))
    )
    return g.op("Log", g.op("Div", inner, g.op("Sub", g.scalar(1, x.dtype), inner)))


@aten("trunc fix")
def trunc(g: Writer, call: Call, x: Value) -> str:
    return g.op("Mul", g.op("Sign", x), g.op("Floor", g.op("Abs", x)))


@aten("round")
def round_half_even(g: Writer, call: Call, x: Value, decimals: int = 0) -> str:
    if not decimals:
        return g.op("Round", x)
    scale = g.scalar(10.0**decimals, x.dtype)
    return g.op("Div", g.op("Round", g.op("Mul", x, scale)), scale)


@aten("frac")
def frac(g: Writer, call: Call, x: Value) -> str:
    return g.op("Sub", x, trunc(g, call, x))


@aten("sgn")
def sgn(g: Writer, call: Call, x: Value) -> str:
    return g.op("Sign", x)


@aten("positive")
def positive(g: Writer, call: Call, x: Value) -> str:
    return g.name(x)


@aten("nan_to_num")
def nan_to_num(
    g: Writer, call: Call, x: Value, nan: Any = None, posinf: Any = None, neginf: Any = None
) -> str:
    if not x.dtype.is_floating_point:
        return g.name(x)
    info = torch.finfo(x.dtype)
    high = g.scalar(info.max if posinf is None else posinf, x.dtype)
    low = g.scalar(info.min if neginf is None else neginf, x.dtype)
    plain = g.op("Where", g.op("IsNaN", x), g.scalar(nan or 0.0, x.dtype), x)
    over = g.op("IsInf", x, detect_negative=0)
    under = g.op("IsInf", x, detect_positive=0)
    return g.op("Where", over, high, g.op("Where", under, low, plain))


@aten("isinf")
def isinf(g: Writer, call: Call, x: Value) -> str:
    return g.op("IsInf", x)


@aten("isfinite")
def isfinite(g: Writer, call: Call, x: Value) -> str:
    return g.op("Not", g.op("Or", g.op("IsInf", x), g.op("IsNaN", x)))


# Activations


@aten("gelu")
def gelu(g: Writer, call: Call, x: Value, approximate: str = "none") -> str:
    return g.op("Gelu", x, approximate=approximate)


@aten("silu")
def silu(g: Writer, call: Call, x: Value) -> str:
    return g.op("Mul", x, g.op("Sigmoid", x, shape=x.shape, dtype=x.dtype))


@aten("relu6")
def relu6(g: Writer, call: Call, x: Value) -> str:
    return g.op("Clip", x, g.scalar(0, x.dtype), g.scalar(6, x.dtype))


@aten("hardtanh")
def hardtanh(g: Writer, call: Call, x: Value, low: Any = -1, high: Any = 1) -> str:
    return g.op("Clip", x, g.scalar(low, x.dtype), g.scalar(high, x.dtype))


@aten("hardsigmoid")
def hardsigmoid(g: Writer, call: Call, x: Value) -> str:
    return g.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@aten("leaky_relu")
def leaky_relu(g: Writer, call: Call, x: Value, slope: float = 0.01) -> str:
    return g.op("LeakyRelu", x, alpha=float(slope))


@aten("rrelu")
def rrelu(
    g: Writer,
    call: Call,
    x: Value,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> str:
    return g.op("LeakyRelu", x, alpha=(lower + upper) / 2)


@aten("prelu _prelu_kernel")
def prelu(g: Writer, call: Call, x: Value, weight: Value) -> str:
    slope: Any = weight
    if weight.rank == 1 and weight.shape[0] != 1 and x.rank > 2:
        slope = g.op("Unsqueeze", weight, g.ints(list(range(1, x.rank - 1))))
    return g.op("PRelu", x, slope)


@aten("elu")
def elu(
    g: Writer, call: Call, x: Value, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1
) -> str:
    inner: Any = x if input_scale == 1 else g.op("Mul", x, g.scalar(input_scale, x.dtype))
    out = g.op("Elu", inner, alpha=float(alpha))
    return out if scale == 1 else g.op("Mul", out, g.scalar(scale, x.dtype))


@aten("selu")
def selu(g: Writer, call: Call, x: Value) -> str:
    return g.op("Selu", x)


@aten("celu")
def celu(g: Writer, call: Call, x: Value, alpha: Any = 1.0) -> str:
    return g.op("Celu", x, alpha=float(alpha))


@aten("softplus")
def softplus(g: Writer, call: Call, x: Value, beta: Any = 1, threshold: Any = 20) -> str:
    if beta == 1:
        return g.op("Softplus", x)
    scale = g.scalar(beta, x.dtype)
    return g.op("Div", g.op("Softplus", g.op("Mul", x, scale)), scale)


@aten("log_sigmoid")
def log_sigmoid(g: Writer, call: Call, x: Value) -> str:
    return g.op("Log", g.op("Sigmoid", x))


@aten("log_sigmoid_forward")
def log_sigmoid_forward(g: Writer, call: Call, x: Value) -> list[str]:
    return [g.op("Log", g.op("Sigmoid", x))]


@aten("softsign")
def softsign(g: Writer, call: Call, x: Value) -> str:
    return g.op("Softsign", x)


@aten("hardshrink")
def hardshrink(g: Writer, call: Call, x: Value, lambd: Any = 0.5) -> str:
    return g.op("Shrink", x, bias=0.0, lambd=float(lambd))


@aten("softshrink")
def softshrink(g: Writer, call: Call, x: Value, lambd: Any = 0.5) -> str:
    return g.op("Shrink", x, bias=float(lambd), lambd=float(lambd))


@aten("threshold")
def threshold(g: Writer, call: Call, x: Value, limit: Any, value: Any) -> str:
    return g.op("Where", g.op("Greater", x, g.scalar(limit, x.dtype)), x, g.scalar(value, x.dtype))


@aten("glu")
def glu(g: Writer, call: Call, x: Value, dim: int = -1) -> str:
    a, b = g.ops(
        "Split",
        x,
        outputs=2,
        axis=dim % x.rank,
        num_outputs=2,
        types=[(call.out.shape, x.dtype)] * 2,
    )
    return g.op("Mul", a, g.op("Sigmoid", b, shape=call.out.shape, dtype=x.dtype))


@aten("clamp clip")
def clamp(
    g: Writer,
    call: Call,
    x: Value,
    low: Any = None,
    high: Any = None,
    min: Any = None,
    max: Any = None,
) -> str:
    dtype = call.out.dtype
    low, high = (min if low is None else low), (max if high is None else high)
    value = g.operand(x, dtype)
    if any(type(bound) is Value and bound.rank for bound in (low, high)) or dtype is torch.bool:
        for onnx_type, bound in (("Max", low), ("Min", high)):
            if bound is not None:
                value = g.op(onnx_type, value, g.operand(bound, dtype))
        return value
    bounds = [None if bound is None else g.operand(bound, dtype) for bound in (low, high)]
    return g.op("Clip", value, *bounds)


@aten("clamp_min")
def clamp_min(g: Writer, call: Call, x: Value, low: Any) -> str:
    return clamp(g, call, x, low)


@aten("clamp_max")
def clamp_max(g: Writer, call: Call, x: Value, high: Any) -> str:
    return clamp(g, call, x, None, high)


# Comparisons and logic

_COMPARISONS = {
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "lt": "Less",
    "le": "LessOrEqual",
    "eq": "Equal",
}


def _compared(onnx_type: str) -> Any:
    def translate(g: Writer, call: Call, x: Any, y: Any) -> str:
        dtype = common_dtype(x, y)
        if dtype is torch.bool and onnx_type != "Equal":
            dtype = torch.int32
        return g.op(onnx_type, g.operand(x, dtype), g.operand(y, dtype))

    return translate


for _name, _type in _COMPARISONS.items():
    aten(_name)(_compared(_type))
for _name, _long in (
    ("gt", "greater"),
    ("ge", "greater_equal"),
    ("lt", "less"),
    ("le", "less_equal"),
):
    aten(_long)(_compared(_COMPARISONS[_name]))


@aten("ne not_equal")
def not_equal(g: Writer, call: Call, x: Any, y: Any) -> str:
    return g.op("Not", _compared("Equal")(g, call, x, y))


def truth(g: Writer, x: Any) -> str:
    """Return which elements are not zero."""
    if type(x) is Value and x.dtype is torch.bool:
        return g.name(x)
    return g.op("Cast", x, to=9)


def _logical(onnx_type: str) -> Any:
    def translate(g: Writer, call: Call, x: Any, y: Any) -> str:
        return g.op(onnx_type, truth(g, x), truth(g, y))

    return translate


for _name, _type in (("and", "And"), ("or", "Or"), ("xor", "Xor")):
    aten(f"logical_{_name}")(_logical(_type))


@aten("logical_not")
def logical_not(g: Writer, call: Call, x: Value) -> str:
    return g.op("Not", truth(g, x))


def _bitwise(logical: str, bitwise: str) -> Any:
    def translate(g: Writer, call: Call, x: Any, y: Any) -> str:
        dtype = call.out.dtype
        onnx_type = logical if dtype is torch.bool else bitwise
        return g.op(onnx_type, g.operand(x, dtype), g.operand(y, dtype))

    return translate


for _name, _type in (("and", "And"), ("or", "Or"), ("xor", "Xor")):
    aten(f"bitwise_{_name} __{_name}__ __i{_name}_")(_bitwise(_type, f"Bitwise{_type}"))


@aten("bitwise_not")
def bitwise_not(g: Writer, call: Call, x: Value) -> str:
    return g.op("Not" if x.dtype is torch.bool else "BitwiseNot", x)


@aten("where.self where.ScalarOther where.ScalarSelf where.Scalar")
def where(g: Writer, call: Call, condition: Value, x: Any, y: Any) -> str:
    dtype = call.out.dtype
    return g.op("Where", truth(g, condition), g.operand(x, dtype), g.operand(y, dtype))


@aten("masked_fill")
def masked_fill(g: Writer, call: Call, x: Value, mask: Value, value: Any) -> str:
    return g.op("Where", truth(g, mask), g.operand(value, x.dtype), x)
