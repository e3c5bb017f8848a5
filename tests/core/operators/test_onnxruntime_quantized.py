"""Quantised operators of onnxruntime's own domain: columns with their scales, whole blocks, gates."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.operators.brute_force import (
    assert_right,
    case,
    check_case,
    feeds_for,
    model,
    node,
)
from tests.core.operators.test_onnxruntime import fused
from tests.core.operators.test_quantization import int8, uint8
from torchpruner_core import solve_onnx

MS = {"com.microsoft": 1}
S, T = np.float32(0.05), np.float32(0.1)
Z, ZB = np.uint8(128), np.int8(0)


def quantised(kind, inputs, outputs="q2", **attributes):
    """A quantised operator between a product with a weight, quantised, and a dequantised result."""
    return [
        node("MatMul", "x w", "h"),
        node("QuantizeLinear", "h s z", "q"),
        fused(kind, inputs, outputs, **attributes),
        node("DequantizeLinear", f"{outputs} t z", "y"),
    ]


STORED = {"w": (4, 6), "s": S, "t": T, "z": Z}


def simple(name, prunable, inputs, shape=(2, 3, 6), stored=None, x=(2, 3, 4), **attributes):
    kind = name.partition("-")[0]
    return case(
        name,
        prunable,
        quantised(kind, inputs, **attributes),
        {"x": x},
        "y",
        {**STORED, **(stored or {})},
        domains=MS,
        shapes={"y": shape},
    )


CASES = [
    simple("QLinearSigmoid", "x:012 w:01 0:012 1:012 2:012 y:012", "q s z t z"),
    simple("QLinearLeakyRelu", "x:012 w:01 0:012 1:012 2:012 y:012", "q s z t z", alpha=0.1),
    simple("QLinearSoftmax", "x:012 w:01 0:012 1:012 2:012 y:012", "q s z t z", axis=-1, opset=13),
    simple("QLinearAdd", "x:012 w:01 0:012 1:012 2:012 y:012", "q s z q s z t z"),
    simple("QLinearMul", "x:012 w:01 0:012 1:012 2:012 y:012", "q s z q s z t z"),
    simple(
        "QLinearConcat",
        "x:012 w:01 0:012 1:012 2:012 y:012",
        "t z q s z q s z",
        shape=(2, 3, 12),
        axis=2,
    ),
    simple(
        "QLinearGlobalAveragePool",
        "x:013 w:0 0:01 1:01 2:01 y:01",
        "q s z t z",
        shape=(2, 3, 1, 1),
        x=(2, 3, 4, 4),
        stored={"w": (4, 4)},
        channels_last=0,
    ),
    simple(
        "QLinearAveragePool",
        "x:013 w:0 0:01 1:01 2:01 y:01",
        "q s z t z",
        shape=(2, 3, 2, 2),
        x=(2, 3, 4, 4),
        stored={"w": (4, 4)},
        kernel_shape=[2, 2],
        strides=[2, 2],
    ),
    case(
        "QLinearWhere",
        "x:012 w:01 0:012 1:012 c:0 2:012 y:012",
        [
            node("MatMul", "x w", "h"),
            node("QuantizeLinear", "h s z", "q"),
            fused("QLinearWhere", "c q s z q s z t z", "q2"),
            node("DequantizeLinear", "q2 t z", "y"),
        ],
        {"x": (2, 3, 4)},
        "y",
        {**STORED, "c": np.array([[True], [False], [True]])},
        domains=MS,
        shapes={"y": (2, 3, 6)},
    ),
    case(
        "MatMulIntegerToFloat",
        "x:01 0:01 b:01 bs:0 bz:0 c:0 y:01",
        [
            node("QuantizeLinear", "x s z", "q"),
            fused("MatMulIntegerToFloat", "q b s bs z bz c", "y"),
        ],
        {"x": (2, 4)},
        "y",
        {
            "s": S,
            "z": Z,
            "b": int8(4, 6),
            "bs": np.linspace(0.01, 0.03, 6),
            "bz": int8(6),
            "c": (6,),
        },
        domains=MS,
        shapes={"y": (2, 6)},
    ),
    case(
        "DynamicQuantizeMatMul",
        "x:01 b:01 c:0 y:01",
        [fused("DynamicQuantizeMatMul", "x b bs bz c", "y")],
        {"x": (2, 4)},
        "y",
        {"b": int8(4, 6), "bs": S, "bz": ZB, "c": (6,)},
        domains=MS,
        shapes={"y": (2, 6)},
    ),
    case(
        "QGemm",
        "x:01 0:01 b:01 bs:0 bz:0 c:0 y:01",
        [
            node("QuantizeLinear", "x s z", "q"),
            fused("QGemm", "q s z b bs bz c", "y", transB=1),
        ],
        {"x": (2, 4)},
        "y",
        {
            "s": S,
            "z": Z,
            "b": int8(6, 4),
            "bs": np.linspace(0.01, 0.03, 6),
            "bz": int8(6),
            "c": np.arange(6, dtype=np.int32),
        },
        domains=MS,
        shapes={"y": (2, 6)},
    ),
    case(
        "QLinearConv",
        "x:01 0:01 w:01 ws:0 wz:0 b:0 1:01 y:01",
        [
            node("QuantizeLinear", "x s z", "q"),
            fused("QLinearConv", "q s z w ws wz t z b", "q2"),
            node("DequantizeLinear", "q2 t z", "y"),
        ],
        {"x": (2, 3, 5, 5)},
        "y",
        {
            "s": S,
            "t": T,
            "z": Z,
            "w": int8(4, 3, 3, 3),
            "ws": np.linspace(0.01, 0.03, 4),
            "wz": int8(4) * 0,
            "b": np.arange(4, dtype=np.int32),
        },
        domains=MS,
        shapes={"y": (2, 4, 3, 3)},
    ),
    case(
        "QuantizeLinear",
        "x:012 0:012 y:012",
        [fused("QuantizeLinear", "x s z", "q"), fused("DequantizeLinear", "q s z", "y")],
        {"x": (2, 3, 4)},
        "y",
        {"s": S, "z": Z},
        domains=MS,
        shapes={"y": (2, 3, 4)},
    ),
    case(
        "MatMulNBits",
        "x:01 w:01 0:01 b:01 s:0 y:01",
        [
            node("MatMul", "x w", "h"),
            fused("MatMulNBits", "h b s", "y", K=64, N=6, bits=4, block_size=16),
        ],
        {"x": (2, 4)},
        "y",
        {"w": (4, 64), "b": uint8(6, 4, 8), "s": (24,)},
        domains=MS,
        shapes={"y": (2, 6)},
    ),
    case(
        "MatMulNBits-zero_points",
        "x:01 w:0 0:0 b:0 s:0 z:0 c:0 y:01",
        [
            node("MatMul", "x w", "h"),
            fused("MatMulNBits", "h b s z - c", "y", K=64, N=6, bits=4, block_size=16),
        ],
        {"x": (2, 4)},
        "y",
        {"w": (4, 64), "b": uint8(6, 4, 8), "s": (6, 4), "z": uint8(6, 2), "c": (6,)},
        domains=MS,
        shapes={"y": (2, 6)},
    ),
    case(
        "DynamicQuantizeLSTM",
        "x:12 w:12 r:12 b:1 y:23 h:12",
        [
            fused("DynamicQuantizeLSTM", "x w r b - - - - ws wz rs rz", "y h", hidden_size=4),
        ],
        {"x": (3, 2, 5)},
        "y h",
        {
            "w": int8(1, 5, 16),
            "r": int8(1, 4, 16),
            "b": (1, 32),
            "ws": np.array([0.02]),
            "wz": np.zeros(1, np.int8),
            "rs": np.array([0.03]),
            "rz": np.zeros(1, np.int8),
        },
        domains=MS,
        shapes={"y": (3, 1, 2, 4), "h": (1, 2, 4)},
    ),
    case(
        "DynamicQuantizeLSTM-off_centre",
        "x:12 w:12 r:12 b:1 ws:1 wz:1 y:23",
        [
            fused(
                "DynamicQuantizeLSTM",
                "x w r b - - - - ws wz rs rz",
                "y",
                hidden_size=4,
                direction="bidirectional",
            ),
        ],
        {"x": (3, 2, 5)},
        "y",
        {
            "w": uint8(2, 5, 16),
            "r": uint8(2, 4, 16),
            "b": (2, 32),
            "ws": np.linspace(0.01, 0.02, 32).reshape(2, 16),
            "wz": np.full((2, 16), 127, np.uint8),
            "rs": np.array([0.03, 0.02]),
            "rz": np.full(2, 127, np.uint8),
        },
        domains=MS,
        shapes={"y": (3, 2, 2, 4)},
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_quantised_operators(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)


def test_a_language_model_as_its_runtime_wants_it_is_prunable_between_its_opaque_embeddings():
    """int4 embeddings that no slice passes, then products in blocks of int4 around an activation."""
    rng = np.random.default_rng(0)

    def packed(columns: int, rows: int) -> np.ndarray:
        return rng.integers(0, 256, (columns, rows // 16, 8)).astype(np.uint8)

    def scales(*shape: int) -> np.ndarray:
        return rng.uniform(0.01, 0.02, shape).astype(np.float32)

    products = {"block_size": 16, "bits": 4}
    data = model(
        [
            fused(
                *("GatherBlockQuantized", "table ids ts", "h"),
                bits=4, block_size=16, gather_axis=0, quantize_axis=1,
            ),
            fused("MatMulNBits", "h up us", "u", K=32, N=64, **products),
            fused("QuickGelu", "u", "g", alpha=1.0),
            fused("MatMulNBits", "g down ds", "d", K=64, N=32, **products),
            fused("SkipSimplifiedLayerNormalization", "d h norm", "y"),
        ],
        {"ids": ((1, 5), np.int64)},
        ["y"],
        {
            "table": rng.integers(0, 256, (20, 16)).astype(np.uint8), "ts": scales(20, 2),
            "up": packed(64, 32), "us": scales(64, 2), "down": packed(32, 64),
            "ds": scales(32, 4), "norm": np.ones(32),
        },
        domains=MS,
        shapes={"y": (1, 5, 32)},
    )  # fmt: skip
    graph = solve_onnx(data)
    result = graph.cut_analysis("self.up", range(16, 32), 0)
    assert result.terminal["self.down"][1].tolist() == [1]
    assert_right(data, graph, result, feeds_for(graph))
