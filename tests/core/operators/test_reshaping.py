"""Reshapes, transposes, expansions and shuffles between axes."""

from __future__ import annotations

import pytest

from tests.core.operators.brute_force import case, check_case, cut, ints, model, node

STEM = node("Conv", "x w0", "h")
IMAGE = {"x": (1, 3, 4, 4)}
LINEAR = node("MatMul", "x w0", "h")

CASES = [
    case(
        "split_an_input",
        "x:012 y:0123",
        [node("Reshape", "x s", "y")],
        {"x": (2, 12, 5)},
        "y",
        {"s": ints(2, 3, 4, 5)},
    ),
    case(
        "heads",
        "x:01 w0:01 0:01 y:012",
        [LINEAR, node("Reshape", "h s", "y")],
        {"x": (2, 3)},
        "y",
        {"w0": (3, 12), "s": ints(2, 3, 4)},
    ),
    case(
        "inferred_size",
        "x:01 w0:01 0:01 y:012",
        [LINEAR, node("Reshape", "h s", "y")],
        {"x": (2, 3)},
        "y",
        {"w0": (3, 12), "s": ints(0, 3, -1)},
    ),
    case(
        "inferred_heads",
        "x:01 w0:01 0:01 y:012",
        [LINEAR, node("Reshape", "h s", "y")],
        {"x": (2, 3)},
        "y",
        {"w0": (3, 12), "s": ints(0, -1, 4)},
    ),
    case(
        "merge",
        "x:1 w0:01 0:1 1:12 y:01",
        [LINEAR, node("Reshape", "h s", "t"), node("Reshape", "t r", "y")],
        {"x": (2, 3)},
        "y",
        {"w0": (3, 12), "s": ints(2, 3, 4), "r": ints(6, 4)},
    ),
    case(
        "regroup",
        "x:01 w0:01 0:01 1:012 y:012",
        [LINEAR, node("Reshape", "h s", "t"), node("Reshape", "t r", "y")],
        {"x": (2, 3)},
        "y",
        {"w0": (3, 24), "s": ints(2, 2, 12), "r": ints(2, 8, 3)},
    ),
    case(
        "mixed_up",
        "x:1 w0:0",
        [LINEAR, node("Reshape", "h s", "y")],
        {"x": (2, 3)},
        "y",
        {"w0": (3, 12), "s": ints(3, 8)},
    ),
    case(
        "reshape_1",
        "x:01 w0:01 b:0 0:01 y:012",
        [node("Gemm", "x w0 b", "h"), node("Reshape", "h", "y", shape=[2, 3, 4])],
        {"x": (2, 3)},
        "y",
        {"w0": (3, 12), "b": (12,)},
        opset=1,
        shapes={"y": (2, 3, 4)},
    ),
    case(
        "flatten_negative",
        "x:1 w0:01 0:1 y:1",
        [STEM, node("Flatten", "h", "y", axis=-3)],
        IMAGE,
        "y",
        {"w0": (3, 3, 1, 1)},
    ),
    case(
        "flatten_into_linear",
        "x:1 w0:01 0:1 1:1 v:01 y:1",
        [STEM, node("Flatten", "h", "f"), node("MatMul", "f v", "y")],
        IMAGE,
        "y",
        {"w0": (2, 3, 2, 2), "v": (18, 5)},
    ),
    case(
        "squeeze_11",
        "x:13 y:01",
        [node("Squeeze", "x", "y", axes=[0, -2])],
        {"x": (1, 6, 1, 3)},
        "y",
        opset=11,
    ),
    case("squeeze_all", "x:13 y:01", [node("Squeeze", "x", "y")], {"x": (1, 6, 1, 3)}, "y"),
    case(
        "unsqueeze_11",
        "x:01 y:13",
        [node("Unsqueeze", "x", "y", axes=[0, 2])],
        {"x": (6, 3)},
        "y",
        opset=11,
    ),
    case(
        "unsqueeze_13",
        "x:01 y:12",
        [node("Unsqueeze", "x a", "y")],
        {"x": (6, 3)},
        "y",
        {"a": ints(-1, 0)},
    ),
    case("transpose_default", "x:012 y:012", [node("Transpose", "x", "y")], {"x": (2, 3, 4)}, "y"),
    case(
        "transpose",
        "x:012 y:012",
        [node("Transpose", "x", "y", perm=[2, 0, 1])],
        {"x": (2, 3, 4)},
        "y",
    ),
    case(
        "expand",
        "x:01 y:0123",
        [node("Expand", "x r", "y")],
        {"x": (2, 3, 1)},
        "y",
        {"r": ints(4, 1, 1, 3)},
    ),
    case(
        "expand_shorter_shape",
        "x:01 y:012",
        [node("Expand", "x r", "y")],
        {"x": (2, 3, 1)},
        "y",
        {"r": ints(3, 5)},
    ),
    case(
        "tile",
        "x:01 y:012",
        [node("Tile", "x r", "y")],
        {"x": (2, 3, 1)},
        "y",
        {"r": ints(1, 2, 3)},
    ),
    case(
        "tile_weight",
        "x:01 w:01 0:01 y:01",
        [node("Tile", "w r", "t"), node("MatMul", "x t", "y")],
        {"x": (2, 3)},
        "y",
        {"w": (3, 2), "r": ints(1, 2)},
    ),
    case(
        "grouped_query_repeat",
        "x:01 w0:01 0:01 1:013 2:013 3:012 w1:01 4:01 5:012 y:012",
        [
            LINEAR,
            node("Reshape", "h s", "k"),
            node("Expand", "k e", "f"),
            node("Reshape", "f r", "g"),
            node("MatMul", "x w1", "h1"),
            node("Reshape", "h1 r", "q"),
            node("Mul", "q g", "y"),
        ],
        {"x": (2, 3)},
        "y",
        {
            "w0": (3, 6),
            "w1": (3, 12),
            "s": ints(2, 2, 1, 3),
            "e": ints(2, 2, 2, 3),
            "r": ints(2, 4, 3),
        },
    ),
    case(
        "depth_to_space_dcr",
        "x:1 w0:01 0:1 y:1",
        [STEM, node("DepthToSpace", "h", "y", blocksize=2)],
        IMAGE,
        "y",
        {"w0": (12, 3, 1, 1)},
    ),
    case(
        "depth_to_space_crd",
        "x:1 w0:01 0:1 y:1",
        [STEM, node("DepthToSpace", "h", "y", blocksize=2, mode="CRD")],
        IMAGE,
        "y",
        {"w0": (12, 3, 1, 1)},
    ),
    case(
        "space_to_depth",
        "x:1 w0:01 0:1 y:1",
        [STEM, node("SpaceToDepth", "h", "y", blocksize=2)],
        IMAGE,
        "y",
        {"w0": (3, 3, 1, 1)},
    ),
    case(
        "channel_shuffle",
        "x:1 w0:01 0:1 1:12 2:12 y:1",
        [
            STEM,
            node("Reshape", "h s", "t"),
            node("Transpose", "t", "u", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "u r", "y"),
        ],
        IMAGE,
        "y",
        {"w0": (6, 3, 1, 1), "s": ints(1, 2, 3, 4, 4), "r": ints(1, 6, 4, 4)},
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)


def test_crd_takes_blocks_and_dcr_takes_strides():
    def of(mode):
        nodes = [STEM, node("DepthToSpace", "h", "y", blocksize=2, mode=mode)]
        return cut(model(nodes, IMAGE, ["y"], {"w0": (12, 3, 1, 1)}), "y", [1], 1)["w0"]

    assert of("CRD") == {0: [4, 5, 6, 7]} and of("DCR") == {0: [1, 4, 7, 10]}
