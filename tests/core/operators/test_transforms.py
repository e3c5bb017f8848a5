"""Transforms of whole axes and losses: what stands beside the transformed axis passes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.operators.brute_force import case, check_case, node

CASES = [
    case(
        "dft_20",
        "x:01 y:01",
        [node("DFT", "x - a", "y")],
        {"x": (2, 3, 8, 1)},
        "y",
        {"a": np.int64(2)},
        opset=20,
    ),
    case("dft_default", "x:01 y:01", [node("DFT", "x", "y")], {"x": (2, 3, 8, 2)}, "y", opset=20),
    case(
        "dft_17",
        "x:01 y:01",
        [node("DFT", "x", "y", axis=2, onesided=1)],
        {"x": (2, 3, 8, 1)},
        "y",
        opset=17,
    ),
    case(
        "stft",
        "x:0 y:0",
        [node("STFT", "x s w", "y")],
        {"x": (2, 16, 1)},
        "y",
        {"s": np.int64(4), "w": (8,)},
        opset=17,
    ),
    case("determinant", "x:01 y:01", [node("Det", "x", "y")], {"x": (2, 4, 3, 3)}, "y"),
    case(
        "likelihood",
        "x:02 t:01",
        [node("NegativeLogLikelihoodLoss", "x t w", "y")],
        {"x": (3, 4, 2), "t": ((3, 2), np.int64)},
        "y",
        {"w": (4,)},
    ),
    case(
        "likelihood_each",
        "x:02 t:01 y:01",
        [node("NegativeLogLikelihoodLoss", "x t", "y", reduction="none")],
        {"x": (3, 4, 2), "t": ((3, 2), np.int64)},
        "y",
    ),
    case(
        "cross_entropy",
        "x:0 t:0 p:0",
        [node("SoftmaxCrossEntropyLoss", "x t", "y p", reduction="sum")],
        {"x": (3, 4), "t": ((3,), np.int64)},
        "y p",
    ),
    case(
        "cross_entropy_each",
        "x:02 t:01 y:01",
        [node("SoftmaxCrossEntropyLoss", "x t", "y", reduction="none")],
        {"x": (3, 4, 2), "t": ((3, 2), np.int64)},
        "y",
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)
