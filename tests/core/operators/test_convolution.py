"""Convolutions: every cut of every axis, removed for real, computes what the masked model does."""

from __future__ import annotations

import pytest

from tests.core.operators.brute_force import case, check_case, cut, model, node

X = {"x": (1, 3, 5, 5)}
STEM = node("Conv", "x w0", "h")
"""Makes channels that can be pruned: those of a graph input resist where a view asks."""

CASES = [
    case(
        "padded",
        "x:1 w:01 b:0 y:1",
        [node("Conv", "x w b", "y", pads=[1, 1, 1, 1])],
        {"x": (1, 4, 5, 5)},
        "y",
        {"w": (6, 4, 3, 3), "b": (6,)},
    ),
    case(
        "auto_pad_strided",
        "x:01 w:01 y:01",
        [node("Conv", "x w", "y", auto_pad="SAME_LOWER", strides=[2, 2])],
        {"x": (2, 4, 5, 5)},
        "y",
        {"w": (6, 4, 3, 3)},
    ),
    case(
        "one_dimensional",
        "x:1 w:01 b:0 y:1",
        [node("Conv", "x w b", "y")],
        {"x": (1, 4, 7)},
        "y",
        {"w": (6, 4, 3), "b": (6,)},
    ),
    case(
        "three_dimensional",
        "x:1 w:01 y:1",
        [node("Conv", "x w", "y")],
        {"x": (1, 2, 3, 3, 3)},
        "y",
        {"w": (4, 2, 2, 2, 2)},
    ),
    case(
        "grouped",
        "x:1 w0:01 0:1 w:01 b:0 y:1",
        [STEM, node("Conv", "h w b", "y", group=2, auto_pad="VALID")],
        X,
        "y",
        {"w0": (4, 3, 1, 1), "w": (6, 2, 3, 3), "b": (6,)},
    ),
    case(
        "grouped_on_an_input",
        "x:1 w:01 b:0 y:1",
        [node("Conv", "x w b", "y", group=2)],
        {"x": (1, 4, 5, 5)},
        "y",
        {"w": (6, 2, 3, 3), "b": (6,)},
    ),
    case(
        "depthwise",
        "x:1 w0:01 0:1 w:0 b:0 y:1",
        [STEM, node("Conv", "h w b", "y", group=4)],
        X,
        "y",
        {"w0": (4, 3, 1, 1), "w": (4, 1, 3, 3), "b": (4,)},
    ),
    case(
        "depthwise_multiplied",
        "x:1 w0:01 0:1 w:0 b:0 y:1",
        [STEM, node("Conv", "h w b", "y", group=4)],
        X,
        "y",
        {"w0": (4, 3, 1, 1), "w": (8, 1, 3, 3), "b": (8,)},
    ),
    case(
        "transposed",
        "x:1 w0:01 0:1 w:01 b:0 y:1",
        [STEM, node("ConvTranspose", "h w b", "y", strides=[2, 2], output_padding=[1, 1])],
        X,
        "y",
        {"w0": (4, 3, 1, 1), "w": (4, 5, 3, 3), "b": (5,)},
    ),
    case(
        "transposed_grouped",
        "x:1 w0:01 0:1 w:01 b:0 y:1",
        [STEM, node("ConvTranspose", "h w b", "y", group=2, auto_pad="SAME_UPPER", strides=[2, 2])],
        X,
        "y",
        {"w0": (4, 3, 1, 1), "w": (4, 3, 3, 3), "b": (6,)},
    ),
    case(
        "transposed_depthwise",
        "x:1 w0:01 0:1 w:0 y:1",
        [STEM, node("ConvTranspose", "h w", "y", group=4)],
        X,
        "y",
        {"w0": (4, 3, 1, 1), "w": (4, 1, 2, 2)},
    ),
    case(
        "chained_groups",
        "x:1 w0:01 0:1 w:01 b:0 1:1 v:0 y:1",
        [STEM, node("Conv", "h w b", "g", group=2), node("Conv", "g v", "y", group=3)],
        X,
        "y",
        {"w0": (4, 3, 1, 1), "w": (6, 2, 3, 3), "b": (6,), "v": (3, 2, 1, 1)},
    ),
    case(
        "weights_computed",
        "x:1 z:01 w0:01 0:1 v:01 1:01 y:1",
        [STEM, node("Conv", "z v", "w"), node("Conv", "h w", "y")],
        {"x": (1, 3, 5, 5), "z": (2, 3, 1, 1)},
        "y",
        {"w0": (4, 3, 1, 1), "v": (4, 3, 1, 1)},
    ),
    case(
        "deformable",
        "x:1 w:01 b:0 y:1",
        [node("DeformConv", "x w o b m", "y")],
        {"x": (1, 4, 4, 4), "o": (1, 8, 3, 3), "m": (1, 4, 3, 3)},
        "y",
        {"w": (6, 4, 2, 2), "b": (6,)},
    ),
    case(
        "deformable_offset_groups",
        "w:0 y:1",
        [node("DeformConv", "x w o", "y", offset_group=2, group=2)],
        {"x": (1, 4, 4, 4), "o": (1, 16, 3, 3)},
        "y",
        {"w": (6, 2, 2, 2)},
    ),
    case(
        "causal_with_state",
        "x:01 p:01 w:0 b:0 y:01 s:01",
        [node("CausalConvWithState", "x w b p", "y s", activation="silu")],
        {"x": (2, 4, 5), "p": (2, 4, 2)},
        "y s",
        {"w": (4, 1, 3), "b": (4,)},
        opset=27,
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)


def grouped():
    return model(
        [STEM, node("Conv", "h w b", "y", group=2)],
        X,
        ["y"],
        {"w0": (4, 3, 1, 1), "w": (6, 2, 3, 3), "b": (6,)},
    )


def test_a_whole_group_takes_its_inputs_and_outputs():
    found = cut(grouped(), "self.w0", [0, 1], 0)
    assert found["w0"] == {0: [0, 1]} and found["b"] == {0: [0, 1, 2]}
    assert found["w"] == {0: [0, 1, 2]} and found["y"] == {1: [0, 1, 2]}


def test_one_channel_a_group_goes_from_every_group():
    found = cut(grouped(), "self.w0", [1], 0, granularity="inner")
    assert found["w0"] == {0: [1, 3]} and found["w"] == {1: [1]} and "b" not in found
