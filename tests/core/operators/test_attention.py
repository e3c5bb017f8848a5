"""Attention with its heads inside: heads, their dimensions and grouped queries are views."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.operators.brute_force import case, check_case, cut, model, node
from torchpruner_core import solve_onnx

PROJECT = [node("MatMul", "x wq", "q"), node("MatMul", "x wk", "k"), node("MatMul", "x wv", "v")]
X = {"x": (2, 3, 4)}


def weights(q=8, k=8, v=8):
    return {"wq": (4, q), "wk": (4, k), "wv": (4, v)}


def packed(q_heads, kv_heads, **extra):
    return node("Attention", "q k v", "y", q_num_heads=q_heads, kv_num_heads=kv_heads, **extra)


CASES = [
    case(
        "packed",
        "x:012 wq:01 0:012 wk:01 1:012 wv:01 2:012 y:012",
        [*PROJECT, packed(4, 4)],
        X,
        "y",
        weights(),
        opset=23,
    ),
    case(
        "packed_causal_capped",
        "x:02 wq:01 0:02 wk:01 1:02 wv:01 2:02 y:02",
        [*PROJECT, packed(2, 2, is_causal=1, softcap=2.0)],
        X,
        "y",
        weights(),
        opset=23,
    ),
    case(
        "grouped_queries",
        "x:012 wq:01 0:012 wk:01 1:012 wv:01 2:012 y:012",
        [*PROJECT, packed(4, 2)],
        X,
        "y",
        weights(12, 6, 8),
        opset=23,
    ),
    case(
        "one_key_head",
        "x:012 wq:01 0:012 wk:01 1:012 wv:01 2:012 y:012",
        [*PROJECT, packed(4, 1, scale=0.3)],
        X,
        "y",
        weights(12, 3, 2),
        opset=23,
    ),
    case(
        "four_dimensional",
        "q:0123 k:0123 v:0123 y:0123",
        [node("Attention", "q k v", "y")],
        {"q": (2, 4, 3, 2), "k": (2, 2, 5, 2), "v": (2, 2, 5, 3)},
        "y",
        opset=23,
    ),
    case(
        "masked",
        "q:0123 k:0123 v:0123 m:023 y:0123",
        [node("Attention", "q k v m", "y")],
        {"q": (2, 2, 3, 2), "k": (2, 2, 5, 2), "v": (2, 2, 5, 3), "m": (2, 1, 3, 5)},
        "y",
        opset=23,
    ),
    case(
        "with_a_cache",
        "q:123 k:123 v:123 pk:123 pv:123 y:123 nk:123 nv:123 s:123",
        [node("Attention", "q k v - pk pv", "y nk nv s")],
        {
            "q": (1, 2, 3, 2),
            "k": (1, 2, 3, 2),
            "v": (1, 2, 3, 3),
            "pk": (1, 2, 2, 2),
            "pv": (1, 2, 2, 3),
        },
        "y nk nv s",
        opset=23,
    ),
    case(
        "rotary",
        "x:0123 p:01 c:1 s:1 y:0123",
        [node("RotaryEmbedding", "x c s p", "y")],
        {"x": (2, 3, 5, 8), "p": ((2, 5), np.int64)},
        "y",
        {"c": (6, 4), "s": (6, 4)},
        opset=23,
    ),
    case(
        "rotary_interleaved_packed",
        "x:012 w:01 0:012 c:012 s:012 y:012",
        [
            node("MatMul", "x w", "h"),
            node("RotaryEmbedding", "h c s", "y", num_heads=2, interleaved=1),
        ],
        X,
        "y",
        {"w": (4, 16), "c": (2, 3, 4), "s": (2, 3, 4)},
        opset=23,
    ),
    case(
        "rotary_partial",
        "x:012 w:01 0:012 c:012 s:012 y:012",
        [
            node("MatMul", "x w", "h"),
            node("RotaryEmbedding", "h c s", "y", num_heads=2, rotary_embedding_dim=4),
        ],
        X,
        "y",
        {"w": (4, 16), "c": (2, 3, 2), "s": (2, 3, 2)},
        opset=23,
    ),
    case(
        "linear",
        "x:02 wq:01 0:02 wk:01 1:02 wv:01 2:02 y:02 n:0123",
        [
            *PROJECT,
            node(
                "LinearAttention",
                "q k v",
                "y n",
                q_num_heads=2,
                kv_num_heads=2,
                update_rule="linear",
            ),
        ],
        X,
        "y n",
        weights(8, 8, 6),
        opset=27,
    ),
    case(
        "linear_gated_delta",
        "x:02 p:01 d:02 b:02 wq:01 0:02 wk:01 1:02 wv:01 2:02 y:02 n:01",
        [*PROJECT, node("LinearAttention", "q k v p d b", "y n", q_num_heads=4, kv_num_heads=2)],
        {**X, "p": (2, 2, 2, 3), "d": (2, 3, 4), "b": (2, 3, 2)},
        "y n",
        weights(8, 4, 6),
        opset=27,
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)


def test_a_key_head_takes_the_query_heads_that_read_it():
    data = model([*PROJECT, packed(4, 2)], X, ["y"], weights(12, 6, 8), opset=23)
    found = cut(data, "self.wk", [0, 1, 2], 1)
    assert found["wq"] == {1: [0, 1, 2, 3, 4, 5]} and found["wv"] == {1: [0, 1, 2, 3]}
    result = solve_onnx(data).cut_analysis("self.wk", [0, 1, 2], 1)
    assert result.operator["self.Attention"] == {"q_num_heads": 2, "kv_num_heads": 1}
    assert not result.renormalises


def test_a_head_dimension_keeps_the_scale_of_the_original():
    data = model([*PROJECT, packed(4, 4)], X, ["y"], weights(), opset=23)
    found = cut(data, "self.wq", [1], 1, granularity="inner")
    assert found["wq"] == found["wk"] == {1: [1, 3, 5, 7]} and "wv" not in found
