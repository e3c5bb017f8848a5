"""Pools, resizing and sampling: channels pass, positions stay."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.operators.brute_force import case, check_case, ints, node

X = {"x": (2, 4, 4, 4)}

CASES = [
    case(
        "max_pool",
        "x:01 y:01",
        [node("MaxPool", "x", "y", kernel_shape=[2, 2], auto_pad="SAME_UPPER")],
        X,
        "y",
    ),
    case("max_pool_indices", "", [node("MaxPool", "x", "y i", kernel_shape=[2, 2])], X, "y i"),
    case(
        "max_unpool",
        "x:01 0:01 1:01 y:01",
        [
            node("MaxPool", "x", "p i", kernel_shape=[2, 2], strides=[2, 2]),
            node("MaxUnpool", "p i", "y", kernel_shape=[2, 2], strides=[2, 2]),
        ],
        X,
        "y",
    ),
    case(
        "max_unpool_sized",
        "",
        [
            node("MaxPool", "x", "p i", kernel_shape=[2, 2], strides=[2, 2]),
            node("MaxUnpool", "p i s", "y", kernel_shape=[2, 2], strides=[2, 2]),
        ],
        X,
        "y",
        {"s": ints(2, 4, 5, 5)},
        shapes={"y": (2, 4, 5, 5)},
    ),
    case(
        "average_pool",
        "x:01 y:01",
        [node("AveragePool", "x", "y", kernel_shape=[3, 3], pads=[1] * 4, ceil_mode=1)],
        X,
        "y",
    ),
    case("lp_pool", "x:01 y:01", [node("LpPool", "x", "y", kernel_shape=[2, 2], p=3)], X, "y"),
    *(
        case(kind, "x:01 y:01", [node(kind, "x", "y")], X, "y")
        for kind in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
    ),
    case(
        "resize_sizes",
        "x:01 y:01",
        [node("Resize", "x - - s", "y", mode="linear")],
        X,
        "y",
        {"s": ints(2, 4, 6, 6)},
    ),
    case(
        "resize_scales_axes",
        "x:01 y:01",
        [node("Resize", "x - s", "y", axes=[-2, 3])],
        X,
        "y",
        {"s": np.array([2.0, 1.5])},
        opset=18,
    ),
    case(
        "resize_to_the_same_size",
        "x:02 y:02",
        [node("Resize", "x - s", "y")],
        X,
        "y",
        {"s": np.array([1, 1.2, 1, 2.0])},
    ),
    case(
        "resize_10",
        "x:01 y:01",
        [node("Resize", "x s", "y", mode="nearest")],
        X,
        "y",
        {"s": np.array([1, 1, 2.0, 2.0])},
        opset=10,
    ),
    case(
        "upsample_9",
        "x:01 y:01",
        [node("Upsample", "x s", "y")],
        X,
        "y",
        {"s": np.array([1, 1, 2.0, 2.0])},
        opset=9,
    ),
    case(
        "upsample_7",
        "x:01 y:01",
        [node("Upsample", "x", "y", scales=[1.0, 1.0, 2.0, 2.0])],
        X,
        "y",
        opset=7,
    ),
    case(
        "grid_sample",
        "x:01 g:0 y:01",
        [node("GridSample", "x g", "y")],
        {**X, "g": (2, 2, 2, 2)},
        "y",
    ),
    case(
        "affine_grid",
        "x:01 t:0 0:0 y:01",
        [node("AffineGrid", "t s", "g"), node("GridSample", "x g", "y")],
        {**X, "t": (2, 2, 3)},
        "y",
        {"s": ints(2, 4, 3, 3)},
    ),
    case(
        "roi_align",
        "x:1 y:1",
        [node("RoiAlign", "x r b", "y", output_height=2, output_width=2)],
        X,
        "y",
        {"r": np.array([[0.0, 0, 2, 2], [1, 1, 3, 3]]), "b": ints(0, 1)},
    ),
    case(
        "max_roi_pool",
        "x:1 y:1",
        [node("MaxRoiPool", "x r", "y", pooled_shape=[2, 2])],
        X,
        "y",
        {"r": np.array([[0.0, 0, 0, 2, 2], [1, 1, 1, 3, 3]])},
    ),
    case(
        "center_crop_pad",
        "x:01 y:01",
        [node("CenterCropPad", "x s", "y")],
        X,
        "y",
        {"s": ints(2, 4, 3, 6)},
        opset=18,
    ),
    case(
        "center_crop_axes",
        "x:012 y:012",
        [node("CenterCropPad", "x s", "y", axes=[-3, -1])],
        X,
        "y",
        {"s": ints(4, 3)},
        opset=18,
    ),
    case(
        "col2im",
        "z:1 w:01 0:1 1:1 y:1",
        [
            node("Conv", "z w", "c"),
            node("Reshape", "c r", "h"),
            node("Col2Im", "h s b", "y", strides=[2, 2]),
        ],
        {"z": (1, 3, 2, 2)},
        "y",
        {"w": (12, 3, 1, 1), "r": ints(1, 12, 4), "s": ints(4, 4), "b": ints(2, 2)},
        opset=18,
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)
