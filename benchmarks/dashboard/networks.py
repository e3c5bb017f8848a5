"""Files for the dashboard's figures, written as ONNX directly: no exporter has to run."""

from __future__ import annotations

from typing import Any


def deep_network(blocks: int = 250, width: int = 8) -> bytes:
    """``blocks`` of convolution, batch norm and ReLU: four modules each, the block included."""
    from onnx import TensorProto, helper

    nodes: list[Any] = []
    weights: list[Any] = []
    value = "x"
    for number in range(blocks):
        path, scope = f"layers.{number}", f"/layers/layers.{number}"
        sizes = [width, 3 if number == 0 else width, 3, 3]
        names = {"conv.weight": sizes, **{f"bn.{part}": [width] for part in _NORM}}
        for name, shape in names.items():
            count = 1
            for size in shape:
                count *= size
            content = [0.5] * count
            weights.append(helper.make_tensor(f"{path}.{name}", TensorProto.FLOAT, shape, content))
        conv, norm, out = f"c{number}", f"n{number}", f"r{number}"
        nodes += [
            helper.make_node(
                "Conv", [value, f"{path}.conv.weight"], [conv], f"{scope}/conv/Conv", pads=[1] * 4
            ),
            helper.make_node(
                "BatchNormalization",
                [conv, *(f"{path}.bn.{part}" for part in _NORM)],
                [norm],
                f"{scope}/bn/BatchNormalization",
            ),
            helper.make_node("Relu", [norm], [out], f"{scope}/relu/Relu"),
        ]
        value = out
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, [1, width, 16, 16])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    content = model.SerializeToString()
    return bytes(content)


_NORM = ("weight", "bias", "running_mean", "running_var")
