"""A large ONNX file without a large model behind it: linear layers with made-up weights."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from onnx import TensorProto, helper

WIDTH = 8192
LAYER_BYTES = 4 * WIDTH * WIDTH


def write_big_onnx(path: Path, layers: int) -> int:
    """Write a chain of ``layers`` linear layers of 256 MiB each; return the file's size in bytes."""
    noise = os.urandom(1 << 20) * (LAYER_BYTES >> 20)
    nodes, weights = [], []
    for k in range(layers):
        tensor = TensorProto(name=f"layers.{k}.weight", data_type=TensorProto.FLOAT)
        tensor.dims.extend([WIDTH, WIDTH])
        tensor.raw_data = noise
        weights.append(tensor)
        source = "x" if k == 0 else f"h{k - 1}"
        target = "y" if k == layers - 1 else f"h{k}"
        nodes.append(helper.make_node("Gemm", [source, tensor.name], [target], transB=1))
    graph = helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, WIDTH])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path.stat().st_size
