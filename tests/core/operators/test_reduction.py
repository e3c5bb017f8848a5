"""Reductions and operators that run along an axis."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.operators.brute_force import case, check_case, ints, node

X = {"x": (2, 3, 4)}
REDUCTIONS = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
]

CASES = [
    *(
        case(
            f"{kind}_18",
            "x:012 y:01",
            [node(kind, "x a", "y", keepdims=0)],
            X,
            "y",
            {"a": ints(-2)},
            feeds={"x": np.random.default_rng(3).uniform(0.5, 2, (2, 3, 4)).astype(np.float32)},
        )
        for kind in REDUCTIONS
    ),
    case(
        "attribute_axes",
        "x:012 y:01",
        [node("ReduceMax", "x", "y", axes=[-1], keepdims=1)],
        X,
        "y",
        opset=11,
    ),
    case("noop", "x:012 y:012", [node("ReduceSum", "x", "y", noop_with_empty_axes=1)], X, "y"),
    case(
        "noop_empty_list",
        "x:012 y:012",
        [node("ReduceSum", "x a", "y", noop_with_empty_axes=1)],
        X,
        "y",
        {"a": np.array([], np.int64)},
    ),
    case("all_axes", "x:012", [node("ReduceMean", "x", "y", keepdims=0)], X, "y"),
    case(
        "sum_of_zeros",
        "x:012 w:01 0:012 1:012 y:01",
        [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("ReduceSum", "r a", "y")],
        X,
        "y",
        {"w": (4, 5), "a": ints(-1)},
    ),
    case(
        "sum_of_sigmoids",
        "x:012 w:01 0:012 1:012 y:01",
        [node("MatMul", "x w", "h"), node("Sigmoid", "h", "r"), node("ReduceSum", "r a", "y")],
        X,
        "y",
        {"w": (4, 5), "a": ints(-1)},
    ),
    case("arg_max", "x:02 y:01", [node("ArgMax", "x", "y", axis=-2, keepdims=0)], X, "y"),
    case("arg_min", "x:12 y:12", [node("ArgMin", "x", "y", select_last_index=1)], X, "y"),
    case("top_k", "x:02 y:02 i:02", [node("TopK", "x k", "y i", axis=1)], X, "y i", {"k": ints(2)}),
    case(
        "cum_sum",
        "x:012 y:012",
        [node("CumSum", "x k", "y", reverse=1)],
        X,
        "y",
        {"k": np.int64(-2)},
    ),
    case(
        "cum_prod",
        "x:012 y:012",
        [node("CumProd", "x k", "y", exclusive=1)],
        X,
        "y",
        {"k": np.int64(1)},
        opset=26,
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)
