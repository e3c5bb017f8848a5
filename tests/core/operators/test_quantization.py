"""Quantised tensors: per tensor, per slice and per block; sums are exact where zero is zero."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.operators.brute_force import case, check_case, model, node
from torchpruner_core import solve_onnx

RNG = np.random.default_rng(5)


def int8(*shape):
    return RNG.integers(-20, 20, shape).astype(np.int8)


def uint8(*shape):
    return RNG.integers(100, 156, shape).astype(np.uint8)


SCALE, ZERO, MIDDLE = np.float32(0.05), np.int8(0), np.uint8(128)
X = {"x": (2, 4, 3)}
QX = {"x": ((1, 3, 5, 5), np.uint8)}

CASES = [
    case(
        "per_tensor",
        "x:012 0:012 y:012",
        [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")],
        X,
        "y",
        {"s": SCALE, "z": MIDDLE},
    ),
    case(
        "per_axis",
        "x:012 s:0 z:0 0:012 y:012",
        [
            node("QuantizeLinear", "x s z", "q", axis=-2),
            node("DequantizeLinear", "q s z", "y", axis=1),
        ],
        X,
        "y",
        {"s": np.linspace(0.02, 0.05, 4), "z": int8(4)},
    ),
    case(
        "blocked",
        "x:012 s:012 0:012 y:012",
        [
            node("QuantizeLinear", "x s", "q", axis=1, block_size=2, output_dtype=3),
            node("DequantizeLinear", "q s", "y", axis=1, block_size=2),
        ],
        X,
        "y",
        {"s": RNG.uniform(0.02, 0.05, (2, 2, 3))},
    ),
    case(
        "blocked_unevenly",
        "w:1 s:1 y:1",
        [node("DequantizeLinear", "w s", "y", axis=0, block_size=2)],
        {},
        "y",
        {"w": int8(3, 4), "s": RNG.uniform(0.02, 0.05, (2, 4))},
    ),
    case(
        "weights_in_integers",
        "x:01 w:01 s:0 z:0 0:01 y:01",
        [node("DequantizeLinear", "w s z", "v", axis=0), node("Gemm", "x v", "y", transB=1)],
        {"x": (2, 4)},
        "y",
        {"w": int8(5, 4), "s": np.linspace(0.02, 0.05, 5), "z": np.zeros(5, np.int8)},
    ),
    case(
        "dynamic",
        "x:01 w:01 0:01 1:01 y:01",
        [
            node("MatMul", "x w", "h"),
            node("DynamicQuantizeLinear", "h", "q s z"),
            node("DequantizeLinear", "q s z", "y"),
        ],
        {"x": (2, 3)},
        "y",
        {"w": (3, 4)},
    ),
    case(
        "dynamic_matmul",
        "x:01 0:01 w:01 3:01 y:01",
        [
            node("DynamicQuantizeLinear", "x", "q s z"),
            node("MatMulInteger", "q w z v", "i"),
            node("Cast", "i", "y", to=1),
        ],
        {"x": (3, 4)},
        "y",
        {"w": int8(4, 5), "v": np.int8(0)},
    ),
    case(
        "integer_matmul_per_column",
        "x:01 w:01 v:0 y:01",
        [node("MatMulInteger", "x w z v", "y")],
        {"x": ((3, 4), np.uint8)},
        "y",
        {"w": int8(4, 5), "z": MIDDLE, "v": np.zeros(5, np.int8)},
    ),
    case(
        "integer_matmul_off_centre",
        "x:01 w:01 y:01",
        [node("MatMulInteger", "x w z v", "y")],
        {"x": ((3, 4), np.uint8)},
        "y",
        {"w": uint8(4, 5), "z": MIDDLE, "v": np.uint8(120)},
    ),
    case(
        "linear_matmul",
        "x:01 w:01 t:0 v:0 y:01",
        [node("QLinearMatMul", "x s z w t v s z", "y")],
        {"x": ((3, 4), np.uint8)},
        "y",
        {
            "w": int8(4, 5),
            "s": SCALE,
            "z": MIDDLE,
            "t": np.linspace(0.01, 0.02, 5),
            "v": np.zeros(5, np.int8),
        },
    ),
    case(
        "integer_conv",
        "x:1 w:01 y:1",
        [node("ConvInteger", "x w z", "y")],
        QX,
        "y",
        {"w": uint8(4, 3, 3, 3), "z": np.uint8(0)},
    ),
    case(
        "integer_conv_off_centre",
        "x:1 w:01 y:1",
        [node("ConvInteger", "x w z v", "y")],
        QX,
        "y",
        {"w": uint8(4, 3, 3, 3), "z": MIDDLE, "v": np.uint8(128)},
    ),
    case(
        "linear_conv",
        "x:1 w:01 t:0 v:0 b:0 y:1",
        [node("QLinearConv", "x s z w t v s z b", "y")],
        QX,
        "y",
        {
            "w": int8(4, 3, 3, 3),
            "s": SCALE,
            "z": MIDDLE,
            "t": np.linspace(0.01, 0.02, 4),
            "v": np.zeros(4, np.int8),
            "b": np.arange(4, dtype=np.int32),
        },
    ),
    case(
        "linear_conv_grouped",
        "x:1 w:01 y:1",
        [node("QLinearConv", "x s z w t v s z", "y", group=2)],
        {"x": ((1, 4, 5, 5), np.uint8)},
        "y",
        {"w": int8(6, 2, 3, 3), "s": SCALE, "z": MIDDLE, "t": SCALE, "v": ZERO},
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)


def test_weights_off_centre_are_listed():
    def listed(zero_point):
        stored = {"w": uint8(4, 3, 3, 3), "z": MIDDLE, "v": np.uint8(zero_point)}
        data = model([node("ConvInteger", "x w z v", "y")], QX, ["y"], stored)
        return solve_onnx(data).cut_analysis("self.w", [0], 1).renormalises

    assert listed(128) == ("self.ConvInteger",) and listed(0) == ()
