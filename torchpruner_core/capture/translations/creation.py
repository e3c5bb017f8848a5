"""Tensors made in the program from the shape of another, and random ones.

What follows from literals alone is stored; what takes the shape of a computed tensor asks for it, so
that it is as long as that tensor after a cut too.
"""

from __future__ import annotations

from typing import Any

import torch

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import ELEMENTS, Writer


def _filled_like(g: Writer, call: Call, x: Value, number: Any) -> str:
    value = torch.tensor([number]).to(call.out.dtype)
    if call.out.shape != x.shape:
        return g.tensor(torch.full(call.out.shape, number, dtype=call.out.dtype))
    return g.op(
        "ConstantOfShape", g.op("Shape", x, shape=(x.rank,), dtype=torch.int64), value=value
    )


@aten("zeros_like empty_like zero")
def zeros_like(g: Writer, call: Call, x: Value, **rest: Any) -> str:
    return _filled_like(g, call, x, 0)


@aten("ones_like")
def ones_like(g: Writer, call: Call, x: Value, **rest: Any) -> str:
    return _filled_like(g, call, x, 1)


@aten("full_like fill.Scalar")
def full_like(g: Writer, call: Call, x: Value, number: Any, **rest: Any) -> str:
    return _filled_like(g, call, x, number)


@aten("fill.Tensor")
def fill(g: Writer, call: Call, x: Value, value: Value) -> str:
    shape = g.op("Shape", x, shape=(x.rank,), dtype=torch.int64)
    return g.op("Expand", g.operand(value, call.out.dtype), shape)


# A size that is the shape of ``x`` was read off it: ``x.new_zeros(x.shape)``.


@aten("new_zeros new_empty new_empty_strided")
def new_zeros(g: Writer, call: Call, x: Value, size: Any, *rest: Any, **more: Any) -> str:
    return _filled_like(g, call, x, 0)


@aten("new_ones")
def new_ones(g: Writer, call: Call, x: Value, size: Any, **rest: Any) -> str:
    return _filled_like(g, call, x, 1)


@aten("new_full")
def new_full(g: Writer, call: Call, x: Value, size: Any, number: Any, **rest: Any) -> str:
    return _filled_like(g, call, x, number)


def _random(onnx_type: str) -> Any:
    def translate(g: Writer, call: Call, size: Any, **rest: Any) -> str:
        return g.ops(
            onnx_type,
            outputs=1,
            attributes={"shape": list(size), "dtype": ELEMENTS[call.out.dtype][0]},
        )[0]

    return translate


def _random_like(onnx_type: str) -> Any:
    def translate(g: Writer, call: Call, x: Value, **rest: Any) -> str:
        return g.ops(onnx_type, x, outputs=1, attributes={"dtype": ELEMENTS[call.out.dtype][0]})[0]

    return translate


aten("rand")(_random("RandomUniform"))
aten("randn")(_random("RandomNormal"))
aten("rand_like uniform")(_random_like("RandomUniformLike"))
aten("randn_like")(_random_like("RandomNormalLike"))


@aten("bernoulli.default")
def bernoulli(g: Writer, call: Call, x: Value, generator: Any = None) -> str:
    return g.op("Bernoulli", x)


@aten("dropout native_dropout alpha_dropout feature_dropout feature_alpha_dropout")
def dropout(g: Writer, call: Call, x: Value, p: float, train: bool = True) -> Any:
    """Dropout in training: ONNX's own operator, told that it trains."""
    out = g.op("Dropout", x, g.scalar(float(p), torch.float32), g.scalar(True, torch.bool))
    return [out] if call.name == "aten::native_dropout" else out
