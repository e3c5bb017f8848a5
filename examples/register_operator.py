"""Describe an operator that the library does not know, here in an ONNX file."""

# --8<-- [start:example]
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import torchpruner_core as tp


class SoftClip(tp.OperatorNode):
    """Elementwise, with one bound for each channel as its second input."""

    def analysis(self, node, mask):
        direction, position = self.rank(node)
        x, bound = self.in_data
        y = self.out_data[0]
        if direction == "in" and position == 1:  # the bound: (channels,)
            channels = mask.indices(0)
            return {n.name: tp.Mask(n.size()).set_mask(channels, 1) for n in (x, y)}, None
        found = {(y if direction == "in" else x).name: mask}
        if mask.indices(1).size:
            found[bound.name] = tp.Mask(bound.size()).set_mask(mask.indices(1), 0)
        return found, None

    def fill_shape(self):
        self.out_data[0].shape, self.out_data[0].dtype = (
            self.in_data[0].shape,
            self.in_data[0].dtype,
        )


tp.operator_register.regist("SoftClip", SoftClip)


def initializer(name: str, *shape: int) -> TensorProto:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


model = helper.make_model(
    helper.make_graph(
        [
            helper.make_node("Conv", ["x", "conv1.weight"], ["a"], "/conv1/Conv"),
            helper.make_node(
                "SoftClip", ["a", "clip.bound"], ["b"], "/clip/SoftClip", domain="com.example"
            ),
            helper.make_node("Conv", ["b", "conv2.weight"], ["y"], "/conv2/Conv"),
        ],
        "soft_clip",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 8, 8))],
        [
            initializer("conv1.weight", 8, 3, 1, 1),
            initializer("clip.bound", 8),
            initializer("conv2.weight", 4, 8, 1, 1),
        ],
    ),
    opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)],
)

solved = tp.solve_onnx(model.SerializeToString())
result = solved.cut_analysis("self.conv1.weight", [0, 7], 0)
for name, axes in result["terminal"].items():
    print(name, [None if cut is None else cut.tolist() for cut in axes])
# --8<-- [end:example]
assert onnx is not None and set(result["terminal"]) == {
    "self.conv1.weight",
    "self.clip.bound",
    "self.conv2.weight",
}
