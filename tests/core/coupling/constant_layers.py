"""Layers of images that count or address channels by themselves: indices, parts, copies, sizes, branches."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.core.coupling.network import Network
from tests.core.operators.brute_force import node


def _places(net: Network, channels: int, distinct: bool = False) -> tuple[str, int]:
    """Store some channels' numbers, as an index buffer does; return its name and length."""
    count = net.integer(2, max(2, channels))
    if distinct:
        taken = net.draw(st.permutations(range(channels)))[: min(count, channels)]
    else:
        taken = [net.integer(-channels, channels - 1) for _ in range(count)]
    return net.constant(*taken), len(taken)


def picked_by_a_tuple(net: Network) -> None:
    """``x[:, order]`` in the torch.export dialect."""
    n, c, h, w = net.shape
    value = net.value
    places, count = _places(net, c)
    tuples = net.apply("Unsqueeze", [places, net.constant(-1)], ())
    turned = net.apply("Transpose", [value], (), perm=[1, 0, 2, 3])
    net.apply("GatherND", [turned, tuples], ())
    net.apply("Transpose", [net.value], (n, count, h, w), perm=[1, 0, 2, 3])


def picked_by_elements(net: Network) -> None:
    """``x.gather(1, order.expand(...))``."""
    n, c, h, w = net.shape
    value = net.value
    places, count = _places(net, c)
    column = net.apply("Reshape", [places, net.constant(1, -1, 1, 1)], ())
    spread = net.apply("Expand", [column, net.constant(n, 1, h, w)], ())
    net.apply("GatherElements", [value, spread], (n, count, h, w), axis=1)


def one_order_for_two(net: Network) -> None:
    """The same stored order picks channels of two tensors."""
    n, c, h, w = net.shape
    value = net.value
    other = net.apply("Conv", [value, net.weight(c, c, 1, 1)], net.shape)
    places, count = _places(net, c)
    parts = [net.apply("Gather", [part, places], (), axis=1) for part in (value, other)]
    net.apply("Concat", parts, (n, 2 * count, h, w), axis=1)


def written_at_places(net: Network) -> None:
    """``y[:, places] = ...``, or added there."""
    n, c, h, w = net.shape
    if c < 2:
        return
    value = net.value
    reduction = net.one_of("none", "add")
    places, count = _places(net, c, distinct=True)
    update = net.apply("Conv", [value, net.weight(count, c, 1, 1)], (n, count, h, w))
    tuples = net.apply("Unsqueeze", [places, net.constant(-1)], ())
    turned = [net.apply("Transpose", [x], (), perm=[1, 0, 2, 3]) for x in (value, update)]
    net.apply("ScatterND", [turned[0], tuples, turned[1]], (), reduction=reduction)
    net.apply("Transpose", [net.value], (n, c, h, w), perm=[1, 0, 2, 3])


def prefix_of_a_weight(net: Network) -> None:
    """A slimmable convolution: the first filters of a wider weight."""
    n, c, h, w = net.shape
    out, value = net.integer(2, 3), net.value
    wide = net.weight(out + net.integer(1, 3), c, 1, 1)
    bounds = [net.constant(0), net.constant(out), net.constant(0)]
    narrow = net.apply("Slice", [wide, *bounds], ())
    net.apply("Conv", [value, narrow], (n, out, h, w))


def made_alike(net: Network) -> None:
    """``zeros_like(f)`` or ``full_like(f, 0.5)`` beside ``f``."""
    n, c, h, w = net.shape
    value = net.value
    shape = net.apply("Shape", [value], ())
    level = f"constant{len(net.stored)}"
    net.stored[level] = np.array(net.one_of(0.0, 0.5), dtype=np.float32)
    copy = net.apply("Expand", [level, shape], ())
    if net.draw(st.booleans()):
        net.apply("Concat", [value, copy], (n, 2 * c, h, w), axis=1)
    else:
        net.apply("Add", [value, copy], (n, c, h, w))


def scaled_by_its_size(net: Network) -> None:
    """``f / f.shape[1]``: the number stays."""
    value, shape = net.value, net.shape
    sizes = net.apply("Shape", [value], ())
    width = net.apply("Gather", [sizes, net.constant(1)], ())
    number = net.apply("Cast", [width], (), to=TensorProto.FLOAT)
    net.apply("Div", [value, number], shape)


def divided_by_its_deviation(net: Network) -> None:
    """An unbiased variance over the channels, with its count read off the tensor."""
    n, c, h, w = net.shape
    if c < 4:
        return
    value, axis = net.value, net.constant(1)
    one = f"constant{len(net.stored)}"
    net.stored[one] = np.array(1.0, dtype=np.float32)
    mean = net.apply("ReduceMean", [value, axis], (), keepdims=1)
    off = net.apply("Sub", [value, mean], ())
    squares = net.apply("Mul", [off, off], ())
    average = net.apply("ReduceMean", [squares, axis], (), keepdims=1)
    sizes = net.apply("Shape", [value], ())
    along = net.apply("Gather", [sizes, axis], ())
    product = net.apply("ReduceProd", [along], (), keepdims=0)
    count = net.apply("Cast", [product], (), to=TensorProto.FLOAT)
    scaled = net.apply("Mul", [average, count], ())
    less = net.apply("Sub", [count, one], ())
    variance = net.apply("Div", [scaled, less], ())
    raised = net.apply("Add", [variance, one], ())
    net.apply("Div", [value, raised], (n, c, h, w))


def training_branch(net: Network) -> None:
    """What runs in training only: a condition that is constant."""
    n, c, h, w = net.shape
    value, weight = net.value, net.weight(c, c, 1, 1)
    flag = f"constant{len(net.stored)}"
    net.stored[flag] = np.array(net.draw(st.booleans()))
    branches = {}
    for name, made in (
        ("then_branch", node("Conv", [value, weight], ["branch_then"])),
        ("else_branch", node("Tanh", [value], ["branch_else"])),
    ):
        output = f"{made.output[0]}{len(net.nodes)}"
        made.output[0] = output
        info = helper.make_tensor_value_info(output, TensorProto.FLOAT, [n, c, h, w])
        branches[name] = onnx.helper.make_graph([made], f"{name}{len(net.nodes)}", [], [info])
    net.apply("If", [flag], (n, c, h, w), **branches)


CONSTANT_LAYERS = (
    picked_by_a_tuple, picked_by_elements, one_order_for_two, written_at_places, prefix_of_a_weight,
    made_alike, scaled_by_its_size, divided_by_its_deviation, training_branch,
)  # fmt: skip
