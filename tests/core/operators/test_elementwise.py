"""Elementwise operators: shapes agree under broadcasting, and zeros stay zeros where it is said."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.core.operators.brute_force import case, check_case, model, node
from torchpruner_core import solve_onnx
from torchpruner_core.operators import elementwise, operator_register

CASES = [
    case(
        "both_sides_stretched",
        "x:02 w:0 y:012",
        [node("Add", "x w", "y")],
        {"x": (2, 1, 4)},
        "y",
        {"w": (3, 1)},
    ),
    case(
        "leading_axes",
        "x:012 w:0 y:012",
        [node("Mul", "w x", "y")],
        {"x": (2, 3, 4)},
        "y",
        {"w": (4,)},
    ),
    case(
        "three_operands",
        "x:01 w:0 v:0 y:01",
        [node("Sum", "x w v", "y")],
        {"x": (2, 3)},
        "y",
        {"w": (3,), "v": (2, 1)},
    ),
    case(
        "where",
        "c:02 x:0 w:012 y:012",
        [node("Where", "c x w", "y")],
        {"c": ((2, 1, 3), bool), "x": (4, 1)},
        "y",
        {"w": (2, 4, 3)},
    ),
    case(
        "prelu",
        "x:012 w:0 y:012",
        [node("PRelu", "x w", "y")],
        {"x": (2, 4, 3)},
        "y",
        {"w": (4, 1)},
    ),
    case(
        "clip",
        "x:01 y:01",
        [node("Clip", "x l h", "y")],
        {"x": (2, 3)},
        "y",
        {"l": np.float32(0.1), "h": np.float32(1)},
    ),
    case(
        "clip_6",
        "x:01 y:01",
        [node("Clip", "x", "y", min=-0.5, max=0.5)],
        {"x": (2, 3)},
        "y",
        opset=6,
    ),
    case(
        "cast_like",
        "x:01 w:0 y:01",
        [node("CastLike", "x w", "y")],
        {"x": (2, 3)},
        "y",
        {"w": (5,)},
    ),
    case("dropout", "x:01 y:01 m:01", [node("Dropout", "x", "y m")], {"x": (2, 3)}, "y m"),
    case(
        "swiglu",
        "x:01 w:01 y:01",
        [node("SwiGLU", "x w", "y")],
        {"x": (2, 3)},
        "y",
        {"w": (2, 3)},
        opset=28,
    ),
    case(
        "bit_cast",
        "x:01 y:01",
        [node("BitCast", "x", "y", to=onnx.TensorProto.INT32)],
        {"x": (2, 3)},
        "y",
        opset=26,
    ),
    case("power", "x:01 y:01", [node("Pow", "x e", "y")], {"x": (2, 3)}, "y", {"e": np.float32(2)}),
    case(
        "divided_by_what_goes",
        "x:01 w:01 0:01 v:01 1:01 2:01 u:01 y:01",
        [
            node("MatMul", "x w", "a"),
            node("MatMul", "x v", "b"),
            node("Div", "a b", "q"),
            node("MatMul", "q u", "y"),
        ],
        {"x": (2, 3)},
        "y",
        {"w": (3, 4), "v": (3, 4), "u": (4, 2)},
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)


def family(*classes):
    return [n for n in operator_register.names() if operator_register.get(n) in classes]


UNARY_FLOAT = [
    n
    for n in family(elementwise.KeepsZero, elementwise.MovesZero, elementwise.Pole)
    if len(onnx.defs.get_schema(n).inputs) == 1
    and n not in ("Not", "BitwiseNot", "BitCast", "IsInf", "IsNaN")
]


@pytest.mark.parametrize("kind", UNARY_FLOAT)
def test_a_sum_over_the_axis_is_exact_or_listed(kind):
    nodes = [
        node("MatMul", "x w", "h"),
        node(kind, "h", "t"),
        node("ReduceSum", "t a", "y", keepdims=0),
    ]
    inputs, stored = {"x": (2, 3)}, {"w": np.full((3, 4), 0.2), "a": np.array([-1])}
    opset = 24 if kind == "Swish" else 21
    feeds = {"x": np.array([[0.5, 0.6, 0.7], [1.5, 1.5, 1.5]], np.float32)}
    made = (nodes, inputs, ["y"], stored)
    check_case(made, {"opset": opset}, feeds, "x:01 w:01 0:01 1:01 y:0")
    listed = solve_onnx(model(*made, opset=opset)).cut_analysis("self.w", [0], 1).renormalises
    at_zero = run_at_zero(kind, opset)
    assert bool(listed) == (at_zero != 0)


def run_at_zero(kind, opset):
    from tests.core.operators.brute_force import run

    data = model([node(kind, "x", "y")], {"x": (1,)}, ["y"], opset=opset)
    return float(run(data, {"x": np.zeros(1, np.float32)})["y"][0])


@pytest.mark.parametrize(
    "kind", ["Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Mean", "Sum", "Pow"]
)
@pytest.mark.parametrize("stretched", [False, True])
def test_two_operands_sum_exactly_or_are_listed(kind, stretched):
    extra = {"fmod": 1} if kind == "Mod" else {}
    nodes = [
        node("MatMul", "x w", "h"),
        node(kind, "h v", "t", **extra),
        node("ReduceSum", "t a", "y", keepdims=0),
    ]
    v = np.full(() if stretched else (4,), 2.0)
    made = (nodes, {"x": (2, 3)}, ["y"], {"w": (3, 4), "v": v, "a": np.array([-1])})
    feeds = {"x": np.abs(np.random.default_rng(1).standard_normal((2, 3))).astype(np.float32)}
    expected = "x:01 w:01 0:01 1:01 y:0" if stretched else "x:01 w:01 0:01 v:0 1:01 y:0"
    check_case(made, {}, feeds, expected)


@pytest.mark.parametrize(
    "kind", ["And", "Or", "Xor", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"]
)
def test_comparisons_broadcast(kind):
    dtype = bool if kind in ("And", "Or", "Xor") else np.float32
    made = ([node(kind, "x z", "y")], {"x": ((2, 1, 4), dtype), "z": ((3, 4), dtype)}, ["y"], {})
    check_case(made, {}, None, "x:02 z:01 y:012")


@pytest.mark.parametrize("kind", ["BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift"])
def test_integers_broadcast(kind):
    extra = {"direction": "LEFT"} if kind == "BitShift" else {}
    inputs = {"x": ((2, 1, 4), np.uint8), "z": ((3, 4), np.uint8)}
    check_case(([node(kind, "x z", "y", **extra)], inputs, ["y"], {}), {}, None, "x:02 z:01 y:012")


@pytest.mark.parametrize("kind", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_random_numbers_have_the_shape_of_their_input(kind):
    data = model(
        [node("MatMul", "x w", "h"), node(kind, "h", "y")], {"x": (2, 3)}, ["y"], {"w": (3, 4)}
    )
    result = solve_onnx(data).cut_analysis("self.w", [1, 2], 1)
    assert result.iner["y"][1].tolist() == [1, 2] and result.outputs[0].shape == (2, 2)


@pytest.mark.parametrize(
    "legacy", [node("Add", "x w", "y", broadcast=1, axis=1), node("PRelu", "x w", "y")]
)
def test_before_operator_set_7_the_second_operand_may_begin_at_an_axis(legacy):
    data = model([legacy], {"x": (2, 3, 3)}, ["y"], {"w": (3,)}, opset=6)
    result = solve_onnx(data).cut_analysis("self.w", [2], 0)
    assert [None if cut is None else cut.tolist() for cut in result.iner["y"]] == [None, [2], None]


@pytest.mark.parametrize(
    ("one", "dtype"),
    [
        (node("Shrink", "x", "y", bias=0.1, lambd=0.4), np.float32),
        (node("Cast", "x", "y", to=onnx.TensorProto.DOUBLE), np.float32),
        (node("IsInf", "x", "y"), np.float32),
        (node("IsNaN", "x", "y"), np.float32),
        (node("Not", "x", "y"), bool),
        (node("BitwiseNot", "x", "y"), np.uint8),
        (node("Identity", "x", "y"), np.int64),
    ],
    ids=lambda value: value.op_type if hasattr(value, "op_type") else "",
)
def test_one_operand_passes_every_axis(one, dtype):
    check_case(([one], {"x": ((2, 3), dtype)}, ["y"], {}), {}, None, "x:01 y:01")


def test_every_elementwise_operator_is_in_these_tests():
    from pathlib import Path

    text = Path(__file__).read_text()
    own = [
        n
        for n in operator_register.names()
        if operator_register.get(n).__module__.endswith("elementwise")
    ]
    assert [n for n in own if f'"{n}"' not in text and n not in UNARY_FLOAT] == []
