"""An operator that lacks what ONNX says it has is named; no rule stumbles over it."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from torchpruner_core.errors import InvalidModelError
from torchpruner_core.importing.solving import solve_onnx

TYPES = [
    "Identity", "Relu", "Add", "Conv", "MatMul", "Gemm", "Reshape", "Cast", "Shape", "Concat",
    "Transpose", "Slice", "Gather", "Split", "If", "Loop", "BatchNormalization", "LSTM", "Expand",
    "Unsqueeze", "Squeeze", "DequantizeLinear", "Where", "ReduceMean", "Softmax", "Resize",
]  # fmt: skip


def file_with(node: onnx.NodeProto) -> bytes:
    """A valid operator, and ``node`` beside it. There are no initializers."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"]), node],
        "g",
        [value("x", TensorProto.FLOAT, [1, 4])],
        [value("y", TensorProto.FLOAT, [1, 4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(("inputs", "outputs"), [([], []), ([], ["q"]), (["", ""], ["q"])])
def test_an_operator_without_its_inputs_is_named(
    type_: str, inputs: list[str], outputs: list[str]
) -> None:
    node = helper.make_node(type_, inputs, outputs, name="broken")
    if type_ == "Loop" and inputs:
        pytest.skip("both of its first inputs are optional")
    with pytest.raises(InvalidModelError, match="broken"):
        solve_onnx(file_with(node))


def test_a_file_without_initializers_has_nothing_to_prune_and_can_be_asked() -> None:
    graph = solve_onnx(file_with(helper.make_node("Neg", ["y"], ["q"])))
    assert graph.groups() == []
    assert list(graph.cut_analysis("y", [0], 1).iner)[:2] == ["x", "y"]
