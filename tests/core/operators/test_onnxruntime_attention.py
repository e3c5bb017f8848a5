"""Attention as onnxruntime fuses it: heads and their dimensions, packed and apart."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.operators.brute_force import case, check_case, node
from tests.core.operators.test_onnxruntime import fused

ATTENTION = {"domains": {"com.microsoft": 1}, "shapes": {"y": (2, 3, 5)}}
OUT = node("MatMul", "a u", "y")
X = {"x": (2, 3, 4)}
QKV = [node("MatMul", f"x w{k}", k) for k in "qkv"]
WEIGHTS = {"wq": (4, 8), "wk": (4, 8), "wv": (4, 8), "u": (8, 5)}
GROUPED = {"wq": (4, 32), "wk": (4, 16), "wv": (4, 16), "u": (32, 5)}

CASES = [
    case(
        "packed",
        "x:02 w:01 b:0 0:02 u:01 y:02",
        [fused("Attention", "x w b", "a", num_heads=4), OUT],
        X,
        "y",
        {"w": (4, 24), "b": (24,), "u": (8, 5)},
        **ATTENTION,
    ),
    case(
        "packed_with_a_mask_and_widths",
        "x:2 w:01 b:0 s:1 0:2 u:01 y:2",
        [
            fused(
                "Attention",
                "x w b m - s",
                "a",
                num_heads=2,
                qkv_hidden_sizes=[8, 8, 4],
                unidirectional=1,
            ),
            node("MatMul", "a u", "y"),
        ],
        X,
        "y",
        {
            "w": (4, 20),
            "b": (20,),
            "u": (4, 5),
            "m": np.ones((2, 3), np.int32),
            "s": (2, 2, 3, 3),
        },
        **ATTENTION,
    ),
    case(
        "quantised",
        "x:02 0:02 w:01 b:0 ws:0 wz:0 1:02 u:01 y:02",
        [
            node("QuantizeLinear", "x s z", "q"),
            fused("QAttention", "q w b s ws - z wz", "a", num_heads=2),
            OUT,
        ],
        X,
        "y",
        {
            "s": np.float32(0.05),
            "z": np.uint8(128),
            "w": np.random.default_rng(1).integers(-20, 20, (4, 24)).astype(np.int8),
            "b": (24,),
            "ws": np.linspace(0.01, 0.03, 24),
            "wz": np.zeros(24, np.int8),
            "u": (8, 5),
        },
        **ATTENTION,
    ),
    case(
        "apart",
        "x:02 wq:01 0:02 wk:01 1:02 wv:01 2:02 b:0 3:02 u:01 y:02",
        [*QKV, fused("MultiHeadAttention", "q k v b", "a", num_heads=4), OUT],
        X,
        "y",
        {**WEIGHTS, "b": (24,)},
        **ATTENTION,
    ),
    case(
        "apart_with_a_bias_of_scores",
        "x:02 wq:01 0:02 wk:01 1:02 wv:01 2:02 s:01 3:02 u:01 y:02",
        [*QKV, fused("MultiHeadAttention", "q k v - - s", "a", num_heads=2), OUT],
        X,
        "y",
        {**WEIGHTS, "s": (2, 2, 3, 3)},
        **ATTENTION,
    ),
    case(
        "grouped",
        "x:02 wq:01 0:02 wk:01 1:02 wv:01 2:02 n:0 3:02 4:01 5:01 u:01 y:02",
        [
            *QKV,
            fused(
                "GroupQueryAttention",
                "q k v - - n t",
                "a pk pv",
                num_heads=4,
                kv_num_heads=2,
            ),
            OUT,
        ],
        X,
        "y",
        {**GROUPED, "n": np.array([2, 2], np.int32), "t": np.int32(3)},
        **ATTENTION,
    ),
    case(
        "grouped_and_packed",
        "x:02 w:01 0:02 n:0 1:02 2:01 3:01 u:01 y:02",
        [
            node("MatMul", "x w", "q"),
            fused(
                "GroupQueryAttention",
                "q - - - - n t",
                "a pk pv",
                num_heads=4,
                kv_num_heads=2,
            ),
            OUT,
        ],
        X,
        "y",
        {"w": (4, 64), "u": (32, 5), "n": np.array([2, 2], np.int32), "t": np.int32(3)},
        **ATTENTION,
    ),
    case(
        "rotary",
        "x:02 wq:01 0:02 p:0 c:1 s:1 1:02 u:01 y:02",
        [
            node("MatMul", "x wq", "q"),
            fused("RotaryEmbedding", "q p c s", "a", num_heads=2),
            OUT,
        ],
        X,
        "y",
        {
            "wq": (4, 8),
            "u": (8, 5),
            "p": np.array([[0, 1, 2], [0, 1, 2]]),
            "c": (6, 2),
            "s": (6, 2),
        },
        **ATTENTION,
    ),
    case(
        "embeddings",
        "ids:0 words:1 places:1 g:0 b:0 0:02 1:0 u:01 y:02",
        [
            fused("EmbedLayerNormalization", "ids - words places - g b", "a m"),
            node("MatMul", "a u", "y"),
        ],
        {"ids": ((2, 3), np.int32)},
        "y",
        {"words": (9, 8), "places": (4, 8), "g": (8,), "b": (8,), "u": (8, 5)},
        **ATTENTION,
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_fused_attention(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)
