"""Concat, Split, Slice, Gather and Pad, in the forms of old and new operator sets."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.operators.brute_force import case, check_case, cut, ints, model, node

X = {"x": (2, 6, 3)}

CASES = [
    case(
        "concat_negative_axis",
        "x:012 z:02 w:012 y:012",
        [node("Concat", "x z w", "y", axis=-2)],
        {"x": (2, 3, 4), "z": (2, 1, 4)},
        "y",
        {"w": (2, 2, 4)},
    ),
    case(
        "concat_with_itself", "x:01 y:01", [node("Concat", "x x", "y", axis=1)], {"x": (2, 3)}, "y"
    ),
    case(
        "split_2",
        "x:012 y:012 z:012",
        [node("Split", "x", "y z", split=[2, 4], axis=1)],
        X,
        "y z",
        opset=2,
    ),
    case(
        "split_unequal",
        "x:012 y:012 z:012",
        [node("Split", "x s", "y z", axis=-2)],
        X,
        "y z",
        {"s": ints(2, 4)},
    ),
    case(
        "split_default",
        "x:012 y:012 z:012",
        [node("Split", "x", "y z", axis=1)],
        X,
        "y z",
        opset=13,
    ),
    case(
        "split_uneven_count",
        "x:012 y:012 z:012 w:02",
        [node("Split", "x", "y z w", axis=-2, num_outputs=3)],
        {"x": (2, 7, 3)},
        "y z w",
    ),
    case(
        "split_part_unused",
        "x:012 0:012 1:012 o:012",
        [node("Split", "x s", "y z", axis=1), node("Relu", "y", "o")],
        X,
        "o",
        {"s": ints(2, 4)},
    ),
    case(
        "slice_1",
        "x:012 y:012",
        [node("Slice", "x", "y", starts=[1, 0], ends=[4, 2], axes=[1, 0])],
        X,
        "y",
        opset=1,
        shapes={"y": (2, 3, 3)},
    ),
    case(
        "slice_negative",
        "x:012 y:012",
        [node("Slice", "x s e a", "y")],
        X,
        "y",
        {"s": ints(-4), "e": ints(-1), "a": ints(-2)},
    ),
    case(
        "slice_beyond",
        "x:012 y:012",
        [node("Slice", "x s e a", "y")],
        X,
        "y",
        {"s": ints(2), "e": ints(2**62), "a": ints(1)},
    ),
    case(
        "slice_reversed",
        "x:012 y:012",
        [node("Slice", "x s e a t", "y")],
        X,
        "y",
        {"s": ints(-1), "e": ints(-(2**62)), "a": ints(1), "t": ints(-1)},
    ),
    case(
        "slice_part_reversed",
        "x:02 y:02",
        [node("Slice", "x s e a t", "y")],
        X,
        "y",
        {"s": ints(4), "e": ints(1), "a": ints(1), "t": ints(-1)},
    ),
    case(
        "slice_step",
        "x:012 y:012",
        [node("Slice", "x s e a t", "y")],
        X,
        "y",
        {"s": ints(1), "e": ints(6), "a": ints(1), "t": ints(2)},
    ),
    case(
        "slice_step_end_within",
        "x:012 y:012",
        [node("Slice", "x s e a t", "y")],
        X,
        "y",
        {"s": ints(0), "e": ints(5), "a": ints(1), "t": ints(2)},
    ),
    case(
        "slice_step_negative_bounds",
        "x:012 y:012",
        [node("Slice", "x s e a t", "y")],
        X,
        "y",
        {"s": ints(-6), "e": ints(-1), "a": ints(1), "t": ints(2)},
    ),
    case(
        "slice_step_uneven",
        "x:02 y:02",
        [node("Slice", "x s e a t", "y")],
        {"x": (2, 7, 3)},
        "y",
        {"s": ints(0), "e": ints(7), "a": ints(1), "t": ints(2)},
    ),
    case(
        "gather_repeated",
        "x:012 i:0 y:012",
        [node("Gather", "x i", "y", axis=-2)],
        X,
        "y",
        {"i": ints(0, 5, 2, 2, -1)},
    ),
    case(
        "gather_table",
        "x:02 i:01 y:0123",
        [node("Gather", "x i", "y", axis=-2)],
        X,
        "y",
        {"i": ints(0, 5, 2, 2).reshape(2, 2)},
    ),
    case(
        "gather_column",
        "x:012 i:0 y:013",
        [node("Gather", "x i", "y", axis=1)],
        X,
        "y",
        {"i": ints(3, 1).reshape(2, 1)},
    ),
    case(
        "gather_one", "x:012 y:01", [node("Gather", "x i", "y", axis=1)], X, "y", {"i": np.int64(3)}
    ),
    case(
        "embedding",
        "i:01 w:1 y:012",
        [node("Gather", "w i", "y")],
        {"i": ((2, 3), np.int64)},
        "y",
        {"w": (5, 4)},
    ),
    case(
        "pad_channels",
        "x:012 y:012",
        [node("Pad", "x p", "y")],
        {"x": (2, 4, 3)},
        "y",
        {"p": ints(0, 1, 0, 0, 2, 1)},
    ),
    case(
        "pad_negative",
        "x:012 y:012",
        [node("Pad", "x p", "y")],
        X,
        "y",
        {"p": ints(0, -1, 0, 0, -2, 1)},
    ),
    case(
        "pad_and_crop",
        "x:012 y:012",
        [node("Pad", "x p c", "y")],
        X,
        "y",
        {"p": ints(0, -1, 0, 0, 2, 1), "c": np.float32(1)},
    ),
    case(
        "pad_axes",
        "x:012 y:012",
        [node("Pad", "x p - a", "y")],
        X,
        "y",
        {"p": ints(1, 2), "a": ints(-2)},
    ),
    case(
        "pad_reflect",
        "x:01 y:01",
        [node("Pad", "x p", "y", mode="reflect")],
        X,
        "y",
        {"p": ints(0, 0, 1, 0, 0, 1)},
    ),
    case(
        "pad_2",
        "x:012 y:012",
        [node("Pad", "x", "y", pads=[0, 1, 0, 0, 2, 1], value=0.5)],
        {"x": (2, 4, 3)},
        "y",
        opset=2,
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)


def test_a_repeated_index_takes_every_copy():
    data = model([node("Gather", "x i", "y", axis=1)], X, ["y"], {"i": ints(0, 5, 2, 2, -1)})
    assert cut(data, "x", [2], 1) == {"i": {0: [2, 3]}, "x": {1: [2]}, "y": {1: [2, 3]}}


def test_concatenated_slices_are_offset():
    data = model([node("Concat", "x z", "y", axis=1)], {"x": (2, 3), "z": (2, 2)}, ["y"])
    assert cut(data, "y", [3], 1) == {"z": {1: [0]}, "y": {1: [3]}}
