"""Graphs as converters other than PyTorch's write them, other operator sets, other dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def weights(seed: int, *shape: int) -> NDArray[np.float32]:
    """Return normally distributed weights."""
    scale = max(1.0, float(np.prod(shape[1:]))) ** 0.5
    drawn: NDArray[np.float32] = np.random.default_rng(seed).standard_normal(shape) / scale
    return drawn.astype(np.float32)


def _model(
    nodes: list[Any], x: list[int | str], stored: dict[str, Any], opset: int, producer: str
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], producer_name=producer, ir_version=8
    )
    data: bytes = made.SerializeToString()
    return data


def paddle() -> bytes:
    """Return a network whose weights are ``Constant`` operators, some behind an ``Identity``."""
    nodes = []

    def constant(name: str, value: NDArray[Any]) -> str:
        tensor = numpy_helper.from_array(value, f"{name}_tensor")
        nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def through_identity(name: str, value: NDArray[Any]) -> str:
        source = constant(f"{name}_source", value)
        nodes.append(helper.make_node("Identity", [source], [name]))
        return name

    current, channels = "x", 3
    for k, wide in enumerate((16, 24, 32)):
        kernel = constant(f"conv2d_{k}.w_0", weights(k, wide, channels, 3, 3))
        nodes.append(helper.make_node("Conv", [current, kernel], [f"c{k}"], pads=[1] * 4))
        parts = [
            through_identity(f"batch_norm_{k}.{part}", value)
            for part, value in (
                ("w_0", 1 + weights(k + 9, wide)),
                ("b_0", weights(k + 10, wide)),
                ("w_1", weights(k + 11, wide)),
                ("w_2", np.abs(weights(k + 12, wide)) + 0.5),
            )
        ]
        nodes.append(helper.make_node("BatchNormalization", [f"c{k}", *parts], [f"b{k}"]))
        nodes.append(helper.make_node("HardSwish", [f"b{k}"], [f"p2o.HardSwish.{k}"]))
        current, channels = f"p2o.HardSwish.{k}", wide
    nodes.append(helper.make_node("GlobalAveragePool", [current], ["pool"]))
    shape = constant("p2o.Constant.0", np.array([1, 32], dtype=np.int64))
    nodes.append(helper.make_node("Reshape", ["pool", shape], ["flat"]))
    product = constant("linear_0.w_0", weights(20, 32, 20))
    nodes.append(helper.make_node("MatMul", ["flat", product], ["m"]))
    bias = constant("linear_0.b_0", weights(21, 20))
    nodes.append(helper.make_node("Add", ["m", bias], ["a"]))
    nodes.append(helper.make_node("Relu", ["a"], ["r"]))
    last = constant("linear_1.w_0", weights(22, 20, 5))
    nodes.append(helper.make_node("MatMul", ["r", last], ["y"]))
    return _model(nodes, ["p2o.DynamicDimension.0", 3, 16, 16], {}, 14, "PaddlePaddle")


def tensorflow() -> bytes:
    """Return a network with channels last outside, names with slashes, and kernels read by name."""
    prefix = "StatefulPartitionedCall/model"
    stored: dict[str, Any] = {
        f"{prefix}/conv2d/Conv2D/ReadVariableOp:0": weights(1, 16, 3, 3, 3),
        f"{prefix}/conv2d/BiasAdd/ReadVariableOp:0": weights(2, 16),
        f"{prefix}/depthwise/ReadVariableOp:0": weights(3, 16, 1, 3, 3),
        f"{prefix}/conv2d_1/Conv2D/ReadVariableOp:0": weights(4, 24, 16, 1, 1),
        f"{prefix}/dense/MatMul/ReadVariableOp:0": weights(5, 24, 20),
        f"{prefix}/dense/BiasAdd/ReadVariableOp:0": weights(6, 20),
        f"{prefix}/dense_1/MatMul/ReadVariableOp:0": weights(7, 20, 5),
        "const_fold_opt__33": np.array([-1, 24], dtype=np.int64),
        "const_axes__34": np.array([1, 2], dtype=np.int64),
    }
    names = list(stored)

    def node(op: str, ins: list[str], out: str, scope: str, **attributes: Any) -> Any:
        return helper.make_node(op, ins, [out], name=f"{prefix}/{scope}", **attributes)

    nodes = [
        node("Transpose", ["x"], "t", "conv2d/Conv2D__6", perm=[0, 3, 1, 2]),
        node("Conv", ["t", names[0], names[1]], "c", "conv2d/Conv2D", pads=[1] * 4),
        node("Clip", ["c"], "r", "re_lu/Relu6"),
        node("Conv", ["r", names[2]], "d", "depthwise/depthwise", group=16, pads=[1] * 4),
        node("Relu", ["d"], "e", "re_lu_1/Relu"),
        node("Conv", ["e", names[3]], "f", "conv2d_1/Conv2D"),
        node("Transpose", ["f"], "g", "conv2d_1/Conv2D__9", perm=[0, 2, 3, 1]),
        node("ReduceMean", ["g"], "h", "pool/Mean", axes=[1, 2], keepdims=0),
        node("Reshape", ["h", names[7]], "i", "flatten/Reshape"),
        node("MatMul", ["i", names[4]], "j", "dense/MatMul"),
        node("Add", ["j", names[5]], "k", "dense/BiasAdd"),
        node("Tanh", ["k"], "l", "dense/Tanh"),
        node("MatMul", ["l", names[6]], "y", "dense_1/MatMul"),
    ]
    return _model(nodes, ["unk__5", 16, 16, 3], stored, 13, "tf2onnx")


def behind_operators() -> bytes:
    """Return a network whose weights stand behind Transpose, Reshape, Cast and DequantizeLinear."""
    rng = np.random.default_rng(0)
    stored: dict[str, Any] = {
        "dense.kernel": weights(1, 20, 12),
        "flat": weights(2, 20 * 16),
        "half": weights(3, 16, 24).astype(np.float16),
        "bytes": rng.integers(-90, 90, (24, 6)).astype(np.int8),
        "scale": np.linspace(0.01, 0.02, 6, dtype=np.float32),
        "zero": np.zeros(6, dtype=np.int8),
        "shape": np.array([20, 16], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Transpose", ["dense.kernel"], ["w1"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Reshape", ["flat", "shape"], ["w2"]),
        helper.make_node("MatMul", ["b", "w2"], ["c"]),
        helper.make_node("Tanh", ["c"], ["d"]),
        helper.make_node("Cast", ["half"], ["w3"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["d", "w3"], ["e"]),
        helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["w4"], axis=1),
        helper.make_node("MatMul", ["e", "w4"], ["y"]),
    ]
    return _model(nodes, [2, 12], stored, 17, "")


def unnamed() -> bytes:
    """Return a network whose values are numbered and whose nodes have no names."""
    stored = {
        str(k): weights(k, *shape) for k, shape in enumerate([(12, 20), (20,), (20, 16), (16, 4)])
    }
    nodes = [
        helper.make_node("MatMul", ["x", "0"], ["10"]),
        helper.make_node("Add", ["10", "1"], ["11"]),
        helper.make_node("Relu", ["11"], ["12"]),
        helper.make_node("MatMul", ["12", "2"], ["13"]),
        helper.make_node("Sigmoid", ["13"], ["14"]),
        helper.make_node("MatMul", ["14", "3"], ["y"]),
    ]
    return _model(nodes, [2, 12], stored, 17, "")


def converted(opset: int, read: Callable[[], bytes]) -> bytes:
    """Return a model in another operator set, by ONNX's version converter."""
    model = onnx.load_model_from_string(read())
    data: bytes = onnx.version_converter.convert_version(model, opset).SerializeToString()
    return data


def retyped(dtype: str, read: Callable[[], bytes]) -> bytes:
    """Return a model whose numbers are of another floating-point type, inside of casts."""
    model = onnx.load_model_from_string(read())
    kinds: dict[str, Any] = {"float16": np.float16, "float64": np.float64}
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kinds[dtype]))
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor).astype(kinds[dtype])
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    del graph.value_info[:]
    first, last = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        for k, name in enumerate(node.input):
            if name == first:
                node.input[k] = f"{first}_cast"
        for k, name in enumerate(node.output):
            if name == last:
                node.output[k] = f"{last}_cast"
    nodes = [
        helper.make_node("Cast", [first], [f"{first}_cast"], to=element),
        *(onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node),
        helper.make_node("Cast", [f"{last}_cast"], [last], to=TensorProto.FLOAT),
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    data: bytes = model.SerializeToString()
    return data


DIALECTS: dict[str, Callable[[], bytes]] = {
    "PaddlePaddle's dialect": paddle,
    "tf2onnx's dialect": tensorflow,
    "weights behind operators": behind_operators,
    "unnamed values": unnamed,
}
