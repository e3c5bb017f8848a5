"""Convolutions: plain, grouped, depthwise and transposed, in any number of spatial dimensions.

Sources: https://onnx.ai/onnx/operators/onnx__Conv.html, onnx__ConvTranspose.html
"""

from __future__ import annotations

from math import prod

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.registry import describes

SPATIAL = "a convolution runs over it"
KERNEL = "it is the kernel of a convolution"


def tie_convolution(
    ties: Ties,
    operator: OperatorNode,
    x: DataNode,
    weight: DataNode,
    out: DataNode,
    *,
    transposed: bool = False,
) -> None:
    """Tie the axes of a convolution's input, weight and output, and add its cost.

    With ``g`` groups the input channels are ``g`` by ``C_in / g`` and the output channels ``g`` by
    ``C_out / g``; the weight holds one of the four as an axis, undivided by groups, and the group
    count falls when a whole group goes.
    """
    groups = int(operator.params.get("group", 1))
    divided, whole = (x, out) if not transposed else (out, x)
    per_group = weight.axis(1)
    if groups == 1:
        ties.same(divided.axis(1), per_group)
    else:
        group = ties.new_axis(groups)
        ties.source(group)
        inner = ties.new_axis(weight.shape[0] // groups)
        ties.source(inner)
        ties.view(divided.axis(1), [group, per_group])
        ties.view(weight.axis(0), [group, inner])
        ties.change("group", group)
    ties.contracts(x.axis(1), weight.axis(0 if transposed else 1))
    ties.same(whole.axis(1), weight.axis(0))
    ties.same(x.axis(0), out.axis(0))
    for node, reason in ((x, SPATIAL), (out, SPATIAL), (weight, KERNEL)):
        for dim in range(2, node.rank):
            operator.opaque_axis(ties, node, dim, reason)
    placed = x if transposed else out
    positions = prod(placed.shape[2:]) * prod(weight.shape[2:])
    ties.cost(2 * positions, [placed.axis(0), weight.axis(0), per_group])


@describes("Conv", "ConvTranspose")
class Convolution(OperatorNode):
    """Input channels are the weight's input axis, output channels its output axis and the bias."""

    def ties(self, ties: Ties) -> None:
        x, weight, bias, out = *self.in_data[:2], self.input(2), self.out_data[0]
        assert x is not None and weight is not None
        tie_convolution(ties, self, x, weight, out, transposed=self.type == "ConvTranspose")
        if bias is not None:
            ties.same(bias.axis(0), out.axis(1))

    def zero_products(self) -> Products | None:
        return ((1,), (2,))


@describes("DeformConv")
class DeformableConvolution(OperatorNode):
    """As a convolution; the offsets and the mask come in groups of their own."""

    def ties(self, ties: Ties) -> None:
        x, weight, offset, out = *self.in_data[:3], self.out_data[0]
        assert x is not None and weight is not None and offset is not None
        tie_convolution(ties, self, x, weight, out)
        if int(self.params.get("offset_group", 1)) > 1:
            self.opaque_axis(ties, x, 1, "its channels share offsets in groups")
        bias = self.input(3)
        if bias is not None:
            ties.same(bias.axis(0), out.axis(1))
        for node in (offset, self.input(4)):
            if node is not None:
                ties.same(node.axis(0), out.axis(0))
                for dim in range(1, node.rank):
                    self.opaque_axis(ties, node, dim, "it holds sampling positions")

    def zero_products(self) -> Products | None:
        return ((1,), (3,))


@describes("CausalConvWithState")
class CausalConvolution(OperatorNode):
    """A depthwise convolution over time that carries its last inputs: channels do not mix."""

    def ties(self, ties: Ties) -> None:
        x, weight, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert x is not None and weight is not None
        bias, states = self.input(2), [self.input(3), *self.out_data[1:]]
        for node, channel in ((weight, 0), (bias, 0), (out, 1), *((state, 1) for state in states)):
            if node is not None:
                ties.same(node.axis(channel), x.axis(1))
        for node in (out, *states):
            if node is not None:
                ties.same(node.axis(0), x.axis(0))
        for node in (x, out, weight, *states):
            if node is not None:
                self.opaque_axis(ties, node, 2, SPATIAL)
        ties.cost(2 * x.shape[2] * weight.shape[2], [x.axis(0), x.axis(1)])

    def zero_products(self) -> Products | None:
        return ((1,), (2,))
