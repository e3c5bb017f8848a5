"""Normalisations: exact across the axes they do not normalise, listed where they do."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.operators.brute_force import case, check_case, cut, model, node
from torchpruner_core import solve_onnx

CASES = [
    case(
        "batch_norm",
        "x:012 s:0 b:0 m:0 v:0 y:012",
        [node("BatchNormalization", "x s b m v", "y")],
        {"x": (2, 4, 3)},
        "y",
        {"s": (4,), "b": (4,), "m": (4,), "v": np.arange(1.0, 5.0)},
    ),
    case(
        "batch_norm_of_vectors",
        "x:01 s:0 b:0 m:0 v:0 y:01",
        [node("BatchNormalization", "x s b m v", "y", epsilon=0.1)],
        {"x": (2, 4)},
        "y",
        {"s": (4,), "b": (4,), "m": (4,), "v": np.arange(1.0, 5.0)},
    ),
    case(
        "instance_norm",
        "x:012 s:0 b:0 y:012",
        [node("InstanceNormalization", "x s b", "y")],
        {"x": (2, 4, 3)},
        "y",
        {"s": (4,), "b": (4,)},
    ),
    case(
        "layer_norm",
        "x:012 s:01 b:0 y:012",
        [node("LayerNormalization", "x s b", "y", axis=1)],
        {"x": (2, 4, 3)},
        "y",
        {"s": (4, 3), "b": (3,)},
    ),
    case(
        "layer_norm_statistics",
        "x:012 s:0 y:012 m:01 i:01",
        [node("LayerNormalization", "x s", "y m i")],
        {"x": (2, 4, 3)},
        "y m i",
        {"s": (3,)},
    ),
    case(
        "rms_norm",
        "x:012 s:01 y:012",
        [node("RMSNormalization", "x s", "y", axis=-2)],
        {"x": (2, 4, 3)},
        "y",
        {"s": (4, 3)},
        opset=23,
    ),
    case(
        "group_norm_21",
        "x:01 w:01 0:01 s:0 b:0 y:01",
        [node("MatMul", "x w", "h"), node("GroupNormalization", "h s b", "y", num_groups=2)],
        {"x": (2, 3)},
        "y",
        {"w": (3, 4), "s": (4,), "b": (4,)},
        shapes={"y": (2, 4)},
    ),
    case("softmax_13", "x:012 y:012", [node("Softmax", "x", "y", axis=1)], {"x": (2, 3, 5)}, "y"),
    case(
        "softmax_11",
        "x:012 y:012",
        [node("Softmax", "x", "y", axis=1)],
        {"x": (2, 3, 5)},
        "y",
        opset=11,
    ),
    case(
        "softmax_11_default",
        "x:012 y:012",
        [node("LogSoftmax", "x", "y")],
        {"x": (2, 3, 5)},
        "y",
        opset=11,
    ),
    case("log_softmax", "x:012 y:012", [node("LogSoftmax", "x", "y")], {"x": (2, 3, 5)}, "y"),
    case("hardmax", "x:012 y:012", [node("Hardmax", "x", "y", axis=-2)], {"x": (2, 3, 5)}, "y"),
    case(
        "lp_norm",
        "x:012 y:012",
        [node("LpNormalization", "x", "y", p=1, axis=1)],
        {"x": (2, 3, 5)},
        "y",
    ),
    case(
        "mean_variance",
        "x:0123 y:0123",
        [node("MeanVarianceNormalization", "x", "y", axes=[0, 1])],
        {"x": (2, 3, 4, 2)},
        "y",
    ),
    case(
        "local_response", "x:023 y:023", [node("LRN", "x", "y", size=3)], {"x": (2, 4, 3, 2)}, "y"
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)


def test_a_group_goes_whole_without_changing_statistics():
    nodes = [node("Conv", "x w", "h"), node("GroupNormalization", "h s b", "y", num_groups=2)]
    data = model(
        nodes,
        {"x": (1, 3, 2, 2)},
        ["y"],
        {"w": (4, 3, 1, 1), "s": (4,), "b": (4,)},
        shapes={"y": (1, 4, 2, 2)},
    )
    assert cut(data, "self.s", [0, 1], 0)["w"] == {0: [0, 1]}
    graph = solve_onnx(data)
    whole = graph.cut_analysis("self.s", [0, 1], 0)
    assert not whole.renormalises and whole.operator["self.GroupNormalization"] == {"num_groups": 1}
    strided = graph.cut_analysis("self.s", [0, 2], 0)
    assert strided.renormalises == ("self.GroupNormalization",)
