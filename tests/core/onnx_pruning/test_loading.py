"""What leaves ``prune_onnx`` loads, and runs with the shapes that data decides."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.core.operators.brute_force import assert_right, cut_arrays, ints, model, node, run
from torchpruner_core import prune_onnx, solve_onnx
from torchpruner_core.errors import GraphError
from torchpruner_core.onnx_pruning.loading import check_loads

COUNTED = [
    node("MatMul", "x w", "row"),
    node("Greater", "x zero", "positive"),
    node("Cast", "positive", "ones", to=TensorProto.INT64),
    node("ReduceSum", "ones", "count", keepdims=0),
    node("Reshape", "count one", "rows"),
    node("Concat", "rows width", "shape", axis=0),
    node("Expand", "row shape", "spread"),
    node("MatMul", "spread v", "y"),
]
STORED = {
    "w": (3, 4), "v": (4, 2), "zero": np.zeros((), np.float32), "one": ints(1), "width": ints(4)
}  # fmt: skip


def test_a_shape_that_data_decides_in_part_is_mended() -> None:
    data = model(COUNTED, {"x": (1, 3)}, ["y"], STORED, shapes={"y": ("n", 2)})
    graph = solve_onnx(data)
    result = graph.cut_analysis("self.w", [1], 1)
    pruned = prune_onnx(data, result)
    for positive in (1, 2, 3):
        x = np.where(np.arange(3) < positive, 1.0, -1.0).astype(np.float32)[None]
        assert_right(data, graph, result, {"x": x})
        [y] = run(pruned, cut_arrays({"x": x}, result)).values()
        assert y.shape == (positive, 2)


def test_a_model_that_no_longer_loads_is_not_handed_out() -> None:
    whole = model([node("Add", "x w", "y")], {"x": (2, 3)}, ["y"], {"w": (2, 3)})
    broken = onnx.load_model_from_string(whole)
    broken.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    )
    with pytest.raises(GraphError, match="does not load the pruned model"):
        check_loads(broken.SerializeToString(), whole)
    check_loads(whole, whole)
    check_loads(broken.SerializeToString(), broken.SerializeToString())
