"""Operators that read or write at positions: constant ones say which slices go together, data does not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.operators.brute_force import case, check_case, ints, node

X = {"x": (2, 4, 3)}

PICKED = np.array([3, 0, 2])

CONSTANT = [
    case(
        "gather_elements_with_stored_indices",
        "x:012 p:0 0:1 1:012 y:012",
        [
            node("Reshape", "p s", "q"),
            node("Expand", "q e", "wide"),
            node("GatherElements", "x wide", "y", axis=1),
        ],
        X,
        "y",
        {"p": PICKED, "s": ints(1, 3, 1), "e": ints(2, 3, 3)},
    ),
    case(
        "gather_nd_with_stored_indices",
        "x:012 0:012 p:0 1:0 2:012 y:012",
        [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            node("Unsqueeze", "p a", "q"),
            node("GatherND", "t q", "g"),
            node("Transpose", "g", "y", perm=[1, 0, 2]),
        ],
        X,
        "y",
        {"p": PICKED, "a": ints(-1)},
    ),
    case(
        "scatter_elements_with_stored_indices",
        "x:012 u:012 p:0 0:1 1:012 y:012",
        [
            node("Reshape", "p s", "q"),
            node("Expand", "q e", "wide"),
            node("ScatterElements", "x wide u", "y", axis=1),
        ],
        {**X, "u": (2, 3, 3)},
        "y",
        {"p": PICKED, "s": ints(1, 3, 1), "e": ints(2, 3, 3)},
    ),
    case(
        "scatter_nd_added_twice_at_one_place",
        "x:012 u:012 p:0 0:0 y:012",
        [node("Unsqueeze", "p a", "q"), node("ScatterND", "x q u", "y", reduction="add")],
        {"x": (4, 2, 3), "u": (4, 2, 3)},
        "y",
        {"p": ints(0, 0, 2, 3), "a": ints(-1)},
    ),
    case(
        "gather_from_the_end",
        "x:012 p:0 y:012",
        [node("Gather", "x p", "y", axis=1)],
        X,
        "y",
        {"p": ints(-1, 0, -3)},
    ),
]

CASES = [
    case(
        "gather_elements",
        "x:02 i:012 y:012",
        [node("GatherElements", "x i", "y", axis=-2)],
        {**X, "i": ((2, 2, 3), np.int64)},
        "y",
    ),
    case(
        "gather_elements_of_a_part",
        "x:12 i:012 y:012",
        [node("GatherElements", "x i", "y", axis=0)],
        {**X, "i": ((3, 2, 3), np.int64)},
        "y",
        feeds={"i": np.ones((3, 2, 3), np.int64)},
    ),
    case(
        "scatter_elements",
        "x:02 i:02 u:02 y:02",
        [node("ScatterElements", "x i u", "y", axis=1)],
        {**X, "i": ((2, 2, 3), np.int64), "u": (2, 2, 3)},
        "y",
        feeds={"i": np.stack([np.zeros((2, 3)), np.ones((2, 3))], 1).astype(np.int64)},
    ),
    case(
        "scatter_elements_of_a_part",
        "x:02 i:02 u:02 y:02",
        [node("ScatterElements", "x i u", "y", axis=1, reduction="add")],
        {**X, "i": ((2, 2, 2), np.int64), "u": (2, 2, 2)},
        "y",
    ),
    case(
        "scatter_9",
        "x:02 i:02 u:02 y:02",
        [node("Scatter", "x i u", "y", axis=1)],
        {**X, "i": ((2, 1, 3), np.int64), "u": (2, 1, 3)},
        "y",
        opset=9,
    ),
    case(
        "gather_nd",
        "x:2 i:0 y:01",
        [node("GatherND", "x i", "y")],
        {**X, "i": ((5, 2), np.int64)},
        "y",
        feeds={"i": np.array([[0, 0], [1, 3], [1, 1], [0, 2], [0, 2]])},
    ),
    case(
        "gather_nd_batch",
        "x:02 i:01 y:012",
        [node("GatherND", "x i", "y", batch_dims=1)],
        {**X, "i": ((2, 3, 1), np.int64)},
        "y",
    ),
    case(
        "scatter_nd",
        "x:12 u:12 y:12",
        [node("ScatterND", "x i u", "y")],
        {**X, "i": ((3, 1), np.int64), "u": (3, 4, 3)},
        "y",
        feeds={"i": np.array([[0], [1], [1]])},
    ),
    case(
        "scatter_nd_at_constant_places",
        "x:012 u:012 i:0 y:012",
        [node("ScatterND", "x i u", "y")],
        {"x": (5, 4, 3), "u": (3, 4, 3)},
        "y",
        {"i": np.array([[0], [3], [1]])},
    ),
    case(
        "tensor_scatter",
        "x:013 u:013 w:0 y:013",
        [node("TensorScatter", "x u w", "y")],
        {"x": (2, 3, 4, 2), "u": (2, 3, 1, 2), "w": ((2,), np.int64)},
        "y",
        opset=24,
    ),
    case(
        "one_hot",
        "i:01 y:02",
        [node("OneHot", "i d v", "y", axis=1)],
        {"i": ((2, 3), np.int64)},
        "y",
        {"d": np.int64(4), "v": np.array([0.0, 1.0])},
    ),
    case(
        "compress_constant",
        "x:012 y:012",
        [node("Compress", "x c", "y", axis=-2)],
        X,
        "y",
        {"c": np.array([1, 0, 1], bool)},
        shapes={"y": (2, 2, 3)},
    ),
    case(
        "reverse_sequence",
        "x:12 l:0 y:12",
        [node("ReverseSequence", "x l", "y")],
        {**X, "l": ((4,), np.int64)},
        "y",
        feeds={"l": ints(1, 2, 2, 1)},
    ),
    case(
        "reverse_sequence_batch_first",
        "x:02 l:0 y:02",
        [node("ReverseSequence", "x l", "y", batch_axis=0, time_axis=1)],
        {**X, "l": ((2,), np.int64)},
        "y",
        feeds={"l": ints(3, 4)},
    ),
    case("triangle", "x:0 y:0", [node("Trilu", "x", "y", upper=0)], X, "y"),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), [*CONSTANT, *CASES])
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)
