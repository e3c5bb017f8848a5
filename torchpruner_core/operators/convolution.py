"""Convolutions: plain, grouped, depthwise and transposed, in any number of spatial dimensions.

Sources: https://onnx.ai/onnx/operators/onnx__Conv.html, onnx__ConvTranspose.html
"""

from __future__ import annotations

from math import prod

from torchpruner_core.coupling.ties import Axis, Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.registry import describes

SPATIAL = "a convolution runs over it"
KERNEL = "it is the kernel of a convolution"


@describes("Conv", "ConvInteger", "ConvTranspose")
class Convolution(OperatorNode):
    """Input channels are the weight's input axis, output channels its output axis and the bias.

    With ``g`` groups the input channels are ``g`` by ``C_in / g`` and the output channels ``g`` by
    ``C_out / g``; the weight holds one of the four as an axis, undivided by groups, and the group
    count falls when a whole group goes.
    """

    def ties(self, ties: Ties) -> None:
        x, weight, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert x is not None and weight is not None
        groups = int(self.params.get("group", 1))
        transposed = self.type == "ConvTranspose"
        divided, whole = (x, out) if not transposed else (out, x)
        per_group = weight.axis(1)
        if groups == 1:
            ties.same(divided.axis(1), per_group)
        else:
            self._tie_groups(ties, divided.axis(1), weight, groups)
        ties.same(whole.axis(1), weight.axis(0))
        bias = self.input(2) if self.type != "ConvInteger" else None
        if bias is not None:
            ties.same(bias.axis(0), out.axis(1))
        ties.same(x.axis(0), out.axis(0))
        for node, reason in ((x, SPATIAL), (out, SPATIAL), (weight, KERNEL)):
            for dim in range(2, node.rank):
                self.opaque_axis(ties, node, dim, reason)
        placed = x if transposed else out
        positions = prod(size for size in placed.shape[2:]) * prod(weight.shape[2:])
        ties.cost(2 * positions, [placed.axis(0), weight.axis(0), per_group])

    def _tie_groups(self, ties: Ties, divided: Axis, weight: DataNode, groups: int) -> None:
        group = ties.new_axis(groups)
        ties.source(group)
        inner = ties.new_axis(weight.shape[0] // groups)
        ties.source(inner)
        ties.view(divided, [group, weight.axis(1)])
        ties.view(weight.axis(0), [group, inner])
        ties.change("group", group)


@describes("DeformConv")
class DeformableConvolution(Convolution):
    """As a convolution; the offsets and the mask come in groups of their own."""

    def ties(self, ties: Ties) -> None:
        x, weight, offset, out = self.in_data[0], self.in_data[1], self.in_data[2], self.out_data[0]
        assert x is not None and weight is not None and offset is not None
        mask = self.input(4)
        groups, offset_groups = (
            int(self.params.get("group", 1)),
            int(self.params.get("offset_group", 1)),
        )
        if groups == 1:
            ties.same(x.axis(1), weight.axis(1))
        else:
            self._tie_groups(ties, x.axis(1), weight, groups)
        if offset_groups > 1:
            self.opaque_axis(ties, x, 1, "its channels share offsets in groups")
        ties.same(out.axis(1), weight.axis(0))
        bias = self.input(3)
        if bias is not None:
            ties.same(bias.axis(0), out.axis(1))
        for node in (offset, mask):
            if node is not None:
                ties.same(node.axis(0), out.axis(0))
                for dim in range(1, node.rank):
                    self.opaque_axis(ties, node, dim, "it holds sampling positions")
        ties.same(x.axis(0), out.axis(0))
        for node, reason in ((x, SPATIAL), (out, SPATIAL), (weight, KERNEL)):
            for dim in range(2, node.rank):
                self.opaque_axis(ties, node, dim, reason)
        positions = prod(out.shape[2:]) * prod(weight.shape[2:])
        ties.cost(2 * positions, [out.axis(0), weight.axis(0), weight.axis(1)])
