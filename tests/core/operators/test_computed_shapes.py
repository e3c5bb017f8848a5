"""Shapes that a program computes from other shapes adapt by themselves; literals are rewritten."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.operators.brute_force import case, check_case, ints, model, node
from torchpruner_core import solve_onnx

LINEAR = [node("MatMul", "x w", "h")]
X = {"x": (2, 3)}
W = {"w": (3, 12)}
SIZE = [node("Shape", "h", "sh"), node("Gather", "sh one", "size")]
ONE = {"one": ints(1), "zero": ints(0)}

CASES = [
    case(
        "reshape_by_a_computed_batch",
        "x:01 w:01 0:01 y:012",
        [
            *LINEAR,
            node("Shape", "h", "sh", end=1),
            node("Concat", "sh rest", "s", axis=0),
            node("Reshape", "h s", "y"),
        ],
        X,
        "y",
        {**W, "rest": ints(3, 4)},
    ),
    case(
        "reshape_to_a_computed_width",
        "x:01 w:01 0:01 4:1 y:1",
        [
            *LINEAR,
            *SIZE,
            node("Concat", "one size", "s", axis=0),
            node("Gather", "h zero", "f"),
            node("Reshape", "f s", "y"),
        ],
        X,
        "y",
        {**W, **ONE},
    ),
    case(
        "heads_by_division",
        "x:01 w:01 0:01 y:012",
        [
            *LINEAR,
            *SIZE,
            node("Div", "size four", "n"),
            node("Concat", "two n four", "s", axis=0),
            node("Reshape", "h s", "y"),
        ],
        X,
        "y",
        {**W, **ONE, "four": ints(4), "two": ints(2)},
    ),
    case(
        "split_by_a_computed_half",
        "x:01 w:01 0:01 5:01 6:01 y:01",
        [
            *LINEAR,
            *SIZE,
            node("Div", "size two", "n"),
            node("Concat", "n n", "s", axis=0),
            node("Split", "h s", "a b", axis=1),
            node("Mul", "a b", "y"),
        ],
        X,
        "y",
        {**W, **ONE, "two": ints(2)},
        shapes={"y": (2, 6)},
    ),
    case(
        "slice_to_a_computed_half",
        "x:01 w:01 0:01 y:01",
        [*LINEAR, *SIZE, node("Div", "size two", "n"), node("Slice", "h zero n one", "y")],
        X,
        "y",
        {**W, **ONE, "two": ints(2)},
    ),
    case(
        "expand_like_another",
        "x:01 w:01 0:01 2:01 y:01",
        [*LINEAR, node("Shape", "h", "sh"), node("Expand", "row sh", "e"), node("Add", "e h", "y")],
        X,
        "y",
        {**W, "row": (1, 1)},
    ),
    case(
        "expand_a_row_like_another",
        "x:01 w:01 0:01 row:0 2:01 y:01",
        [*LINEAR, node("Shape", "h", "sh"), node("Expand", "row sh", "e"), node("Add", "e h", "y")],
        X,
        "y",
        {**W, "row": (12,)},
    ),
    case(
        "filled_like_another",
        "x:01 w:01 0:01 2:01 y:01",
        [
            *LINEAR,
            node("Shape", "h", "sh"),
            node("ConstantOfShape", "sh", "c"),
            node("Sub", "c h", "y"),
        ],
        X,
        "y",
        W,
    ),
    case(
        "counted_like_another",
        "x:01 w:01 0:01 4:0 y:01",
        [
            *LINEAR,
            node("Shape", "h", "sh"),
            node("Gather", "sh at", "n"),
            node("Range", "start n step", "r"),
            node("Cast", "r", "f", to=1),
            node("Add", "f h", "y"),
        ],
        X,
        "y",
        {**W, "at": np.int64(1), "start": np.int64(0), "step": np.int64(1)},
    ),
    case(
        "positions_of_a_table",
        "x:012 2:0 table:01 3:01 w:01 4:012 y:012",
        [
            node("Shape", "x", "sh"),
            node("Gather", "sh at", "n"),
            node("Range", "start n step", "r"),
            node("Gather", "table r", "p"),
            node("MatMul", "x w", "h"),
            node("Add", "h p", "y"),
        ],
        {"x": (2, 4, 3)},
        "y",
        {
            "w": (3, 5),
            "table": (6, 5),
            "at": np.int64(1),
            "start": np.int64(0),
            "step": np.int64(1),
        },
    ),
    case(
        "resized_to_another",
        "x:1 z:123 w:01 0:1 y:1",
        [
            node("Conv", "x w", "h"),
            node("Shape", "z", "zs", start=2),
            node("Shape", "h", "hs", end=2),
            node("Concat", "hs zs", "s", axis=0),
            node("Resize", "h - - s", "y"),
        ],
        {"x": (1, 3, 2, 2), "z": (1, 3, 4, 4)},
        "y",
        {"w": (4, 3, 1, 1)},
    ),
    case(
        "scaled_by_its_own_width",
        "x:01 w:01 0:01 y:01",
        [
            *LINEAR,
            *SIZE,
            node("Cast", "size", "f", to=1),
            node("Sqrt", "f", "r"),
            node("Div", "h r", "y"),
        ],
        X,
        "y",
        {**W, **ONE},
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)


def test_only_literals_are_listed_as_changes():
    nodes = [
        *LINEAR, node("Shape", "h", "sh", end=1), node("Concat", "sh rest", "s", axis=0),
        node("Reshape", "h s", "t"), node("Reshape", "t r", "y"),
    ]  # fmt: skip
    data = model(nodes, X, ["y"], {**W, "rest": ints(3, 4), "r": ints(2, 12)})
    result = solve_onnx(data).cut_analysis("self.w", [0, 1, 2, 3], 1)
    assert result.operator == {
        "self.Reshape": {"shape": [0, 1, 0]},
        "self.Reshape_1": {"shape": [0, 4]},
    }
