"""Matrix products, linear layers and Einstein sums."""

from __future__ import annotations

from typing import Any

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer


@aten("linear")
def linear(g: Writer, call: Call, x: Value, weight: Value, bias: Value | None = None) -> str:
    if weight.rank == 1:
        product = g.op("MatMul", x, weight)
        return product if bias is None else g.op("Add", product, bias)
    if x.rank == 2:
        return g.op("Gemm", x, weight, bias, transB=1)
    turned = g.op("Transpose", weight, perm=[1, 0], shape=weight.shape[::-1], dtype=weight.dtype)
    if bias is None:
        return g.op("MatMul", x, turned)
    product = g.op("MatMul", x, turned, shape=call.out.shape, dtype=call.out.dtype)
    return g.op("Add", product, bias)


@aten("matmul mm bmm mv dot vdot inner")
def matmul(g: Writer, call: Call, a: Value, b: Value) -> str:
    dtype = call.out.dtype
    if dtype.is_floating_point:
        return g.op("MatMul", g.operand(a, dtype), g.operand(b, dtype))
    return g.op("MatMul", a, b)


@aten("addmm")
def addmm(
    g: Writer, call: Call, bias: Value, a: Value, b: Value, beta: Any = 1, alpha: Any = 1
) -> str:
    return g.op("Gemm", a, b, bias, alpha=float(alpha), beta=float(beta))


@aten("addmv baddbmm addbmm")
def added_product(
    g: Writer, call: Call, bias: Value, a: Value, b: Value, beta: Any = 1, alpha: Any = 1
) -> str:
    dtype = call.out.dtype
    product: Any = g.op("MatMul", a, b)
    if call.name == "aten::addbmm":
        product = g.op("ReduceSum", product, g.ints([0]), keepdims=0)
    if alpha != 1:
        product = g.op("Mul", product, g.scalar(alpha, dtype))
    if beta == 0:
        return str(product)
    scaled: Any = bias if beta == 1 else g.op("Mul", bias, g.scalar(beta, dtype))
    return g.op("Add", scaled, product)


@aten("outer ger")
def outer(g: Writer, call: Call, a: Value, b: Value) -> str:
    return g.op("Mul", g.op("Unsqueeze", a, g.ints([1])), g.op("Unsqueeze", b, g.ints([0])))


@aten("einsum")
def einsum(g: Writer, call: Call, equation: str, tensors: list[Value], path: Any = None) -> str:
    return g.op("Einsum", *tensors, equation=_lower(equation))


def _lower(equation: str) -> str:
    """Return an equation in lower-case letters, which is what runtimes take."""
    text = equation.replace(" ", "")
    upper = sorted({c for c in text if c.isupper()})
    free = [c for c in "abcdefghijklmnopqrstuvwxyz" if c not in text]
    names = dict(zip(upper, free, strict=False))
    if "->" not in text:
        letters = text.replace(",", "").replace(".", "")
        once = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
        text = f"{text}->{'...' if '...' in text else ''}{once}"
    return "".join(names.get(c, c) for c in text)


@aten("bilinear")
def bilinear(
    g: Writer, call: Call, a: Value, b: Value, weight: Value, bias: Value | None = None
) -> str:
    out = g.op("Einsum", a, weight, b, equation="...i,kij,...j->...k")
    return out if bias is None else g.op("Add", out, bias)
