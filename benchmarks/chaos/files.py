"""Small networks whose right answers are known without the service."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from torchpruner_core import strip_weights


@dataclass(frozen=True)
class File:
    """An ONNX file of two convolutions, and their weights."""

    content: bytes
    first: NDArray[np.float32]
    second: NDArray[np.float32]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def weightless(self) -> bytes:
        """The file without its weights."""
        return bytes(strip_weights(self.content))


def make_file(seed: int, width: int = 8) -> File:
    """A file of its own for each ``seed``: convolutions 3 -> ``width`` -> 4 over 8 x 8 pixels."""
    random = np.random.default_rng(seed)
    first = random.standard_normal((width, 3, 3, 3)).astype(np.float32)
    second = random.standard_normal((4, width, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "conv1.weight"], ["a"], "conv1", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"], "relu"),
            helper.make_node("Conv", ["b", "conv2.weight"], ["y"], "conv2"),
        ],
        "chaos",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [
            numpy_helper.from_array(first, "conv1.weight"),
            numpy_helper.from_array(second, "conv2.weight"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return File(model.SerializeToString(), first, second)


def right_cut(result: dict[str, Any], index: int) -> bool:
    """Whether the cut of slice ``index`` of the first convolution reaches what it must."""
    terminal = result["terminal"]
    return bool(
        terminal["self.conv1.weight"][0] == [index] and terminal["self.conv2.weight"][1] == [index]
    )


def right_weights(file: File, index: int, content: bytes) -> bool:
    """Whether a safetensors file holds the weights without slice ``index``, bit for bit."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    expected = {
        "conv1.weight": np.delete(file.first, index, 0),
        "conv2.weight": np.delete(file.second, index, 1),
    }
    for name, tensor in expected.items():
        start, end = header[name]["data_offsets"]
        if header[name]["shape"] != list(tensor.shape) or data[start:end] != tensor.tobytes():
            return False
    return True
