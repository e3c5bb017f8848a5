"""Files that are not what they should be: each is refused with what is wrong and what to do."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.core.operators.brute_force import ints, model, node
from torchpruner_core import TensorSpec, solve_onnx
from torchpruner_core.errors import (
    GraphError,
    InputSpecError,
    InvalidModelError,
    OpaqueAxisError,
    UnsupportedModelError,
)

FLOAT = TensorProto.FLOAT


def raw(nodes, inputs, outputs, stored=(), **extra) -> bytes:
    """Return a model that no checker has seen."""
    infos = [helper.make_tensor_value_info(n, FLOAT, s) for n, s in inputs.items()]
    outs = [helper.make_tensor_value_info(n, FLOAT, s) for n, s in outputs.items()]
    graph = helper.make_graph(nodes, "g", infos, outs, list(stored))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], **extra)
    data: bytes = made.SerializeToString()
    return data


def weight(name, *shape):
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def test_a_cycle_is_refused():
    nodes = [node("Add", "x b", "a"), node("Relu", "a", "b"), node("Abs", "b", "y")]
    with pytest.raises(InvalidModelError, match="order"):
        solve_onnx(raw(nodes, {"x": [2]}, {"y": [2]}))


def test_a_value_that_nothing_computes_is_refused():
    with pytest.raises(InvalidModelError, match="nothing"):
        solve_onnx(raw([node("Relu", "missing", "y")], {"x": [2]}, {"y": [2]}))


def test_a_value_computed_twice_is_refused():
    nodes = [node("Relu", "x", "y"), node("Abs", "x", "y")]
    with pytest.raises(InvalidModelError, match=r"twice|y"):
        solve_onnx(raw(nodes, {"x": [2]}, {"y": [2]}))


def test_an_output_that_nothing_computes_is_refused():
    with pytest.raises(InvalidModelError, match="'z'"):
        solve_onnx(raw([node("Relu", "x", "y")], {"x": [2]}, {"z": [2]}))


def test_a_model_without_outputs_is_refused():
    with pytest.raises(InvalidModelError, match="no outputs"):
        solve_onnx(raw([node("Relu", "x", "y")], {"x": [2]}, {}))


def test_shapes_that_contradict_each_other_are_refused():
    nodes = [node("MatMul", "x w", "y")]
    with pytest.raises(InvalidModelError, match="shapes"):
        solve_onnx(raw(nodes, {"x": [2, 3]}, {"y": [2, 5]}, [weight("w", 4, 5)]))


def test_external_data_is_refused():
    tensor = weight("w", 3, 4)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    with pytest.raises(UnsupportedModelError, match="outside the file"):
        solve_onnx(raw([node("MatMul", "x w", "y")], {"x": [2, 3]}, {"y": [2, 4]}, [tensor]))


def test_functions_are_inlined():
    function = helper.make_function(
        "my", "Half", ["a"], ["b"], [node("Relu", "a", "b")], [helper.make_opsetid("", 17)]
    )
    nodes = [node("MatMul", "x w", "h"), node("Half", "h", "y", domain="my")]
    infos = [helper.make_tensor_value_info("x", FLOAT, [2, 3])]
    outs = [helper.make_tensor_value_info("y", FLOAT, [2, 4])]
    graph = helper.make_graph(nodes, "g", infos, outs, [weight("w", 3, 4)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    made = helper.make_model(graph, functions=[function], opset_imports=opsets)
    solved = solve_onnx(made.SerializeToString())
    assert solved.cut_analysis("self.w", [1], 1).outputs[0].shape == (2, 3)


def test_a_sequence_read_at_constants_is_a_split():
    data = model(
        [node("MatMul", "x w", "h"), node("SplitToSequence", "h n", "s", axis=-1),
         node("SequenceAt", "s i", "a"), node("SequenceAt", "s j", "b"), node("Mul", "a b", "y")],
        {"x": (2, 3)}, ["y"], {"w": (3, 6), "n": np.int64(3), "i": np.int64(0), "j": np.int64(-1)},
    )  # fmt: skip
    result = solve_onnx(data).cut_analysis("self.w", [1], 1)
    assert result.terminal["self.w"][1].tolist() == [1, 4]


@pytest.mark.parametrize("op", ["SequenceConstruct", "Optional"])
def test_values_without_axes_do_not_stop_a_graph(op):
    sequence = op == "SequenceConstruct"
    read = node("SequenceAt", "s i", "e") if sequence else node("OptionalGetElement", "s", "e")
    nodes = [
        *(node("MatMul", "x w", "h"), node(op, "h", "s"), read),
        *(node("Relu", "e", "z"), node("MatMul", "x v", "y")),
    ]
    stored = [weight("w", 3, 4), weight("v", 3, 5), numpy_helper.from_array(np.int64(0), "i")]
    graph = solve_onnx(raw(nodes, {"x": [2, 3]}, {"y": [2, 5], "z": [2, 4]}, stored))
    with pytest.raises(OpaqueAxisError, match=op):
        graph.cut_analysis("self.w", [0], 1)
    assert graph.cut_analysis("self.v", [0], 1).params_removed == 3


def dynamic() -> bytes:
    return raw(
        [node("MatMul", "x w", "y")], {"x": ["batch", 3]}, {"y": ["batch", 4]}, [weight("w", 3, 4)]
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "dynamic"),
        ([TensorSpec("x", (2, 5), "float32")], "shape"),
        ([TensorSpec("x", (2, 3, 1), "float32")], "shape"),
        ([TensorSpec("x", (2, 3), "int64")], "dtype"),
        ({"z": TensorSpec("z", (2, 3), "float32")}, "no input called"),
        ([TensorSpec("z", (2, 3), "float32")], "no input called 'z'; its inputs are x"),
        ([TensorSpec("a", (2, 3), "float32"), TensorSpec("b", (2, 3), "float32")], "2 inputs"),
    ],
)
def test_inputs_that_do_not_fit_are_named(given, message):
    with pytest.raises(InputSpecError, match=message):
        solve_onnx(dynamic(), given)


def test_a_dynamic_axis_takes_the_size_it_is_given():
    assert solve_onnx(dynamic(), [TensorSpec("x", (7, 3), "float32")]).nodes["y"].shape == (7, 4)


def test_a_size_that_only_the_data_decides_is_opaque():
    data = model(
        [node("MatMul", "x w", "h"), node("NonZero", "m", "n"), node("Transpose", "n", "i", perm=[1, 0]),
         node("GatherND", "h i", "g"), node("MatMul", "g v", "y")],
        {"x": (4, 3), "m": (4,)}, ["y"], {"w": (3, 5), "v": (5, 2)}, shapes={"y": ("n", 2)},
    )  # fmt: skip
    graph = solve_onnx(data)
    result = graph.cut_analysis("self.w", [1], 1)
    assert result.terminal["self.v"][0].tolist() == [1]
    with pytest.raises(OpaqueAxisError):
        graph.cut_analysis("x", [0], 0)


def test_a_rule_that_fails_is_named(monkeypatch):
    from torchpruner_core.operators.matmul import MatMul

    def broken(self, ties):
        raise KeyError("axis")

    monkeypatch.setattr(MatMul, "ties", broken)
    data = model(
        [node("MatMul", "x w", "y", name="/head/MatMul")], {"x": (2, 3)}, ["y"], {"w": (3, 4)}
    )
    with pytest.raises(GraphError, match=r"self\.head\.MatMul"):
        solve_onnx(data)


def test_unused_tensors_and_shared_constants_do_no_harm():
    data = model(
        [node("Reshape", "x s", "a"), node("Reshape", "z s", "b"), node("Add", "a b", "y")],
        {"x": (2, 6), "z": (2, 6)}, ["y"], {"s": ints(2, 2, 3), "unused": (4,)},
    )  # fmt: skip
    result = solve_onnx(data).cut_analysis("x", [0, 1, 2], 1)
    assert result.iner["z"][1].tolist() == [0, 1, 2]


def test_not_a_model_at_all():
    for data in (b"", b"hello", b"PK\x03\x04" + bytes(100), onnx.TensorProto().SerializeToString()):
        with pytest.raises(InvalidModelError):
            solve_onnx(data)
