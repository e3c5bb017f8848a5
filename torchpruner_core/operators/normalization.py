"""Normalisations and softmax: nothing is lost when a slice of the normalised axis goes, but the
statistics change, so those axes are declared ``renormalises``.

Sources: https://onnx.ai/onnx/operators/onnx__BatchNormalization.html and the pages beside it.
"""

from __future__ import annotations

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.elementwise import tie_broadcast
from torchpruner_core.operators.registry import describes


class Normalization(OperatorNode):
    """The output has the input's shape; ONNX has no rule of its own for some of these."""

    def fill_shape(self) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        out.shape, out.dtype = x.shape, x.dtype


@describes("BatchNormalization")
class BatchNormalization(OperatorNode):
    """Scale, bias, mean and variance have one entry a channel; channels do not mix.

    In training mode, which standardised convolution weights use, the statistics of a channel run
    over all other axes.
    """

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        tie_broadcast(ties, [x], out)
        channel = x.axis(1) if x.rank > 1 else x.axis(0)
        for dim in range(x.rank) if self.params.get("training_mode") else ():
            if x.axis(dim) != channel:
                ties.renormalises(x.axis(dim))
        for node in (*self.in_data[1:], *self.out_data[1:]):
            if node is not None and node.rank == 1:
                ties.same(node.axis(0), channel)

    def zero_products(self) -> Products | None:
        return ((0, 1), (3, 1), (2,))


@describes("InstanceNormalization")
class InstanceNormalization(OperatorNode):
    """Statistics run over the spatial axes of each channel."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        tie_broadcast(ties, [x], out)
        for node in self.in_data[1:]:
            if node is not None:
                ties.same(node.axis(0), x.axis(1))
        for dim in range(2, x.rank):
            ties.renormalises(x.axis(dim))

    def zero_products(self) -> Products | None:
        return ((0, 1), (2,))


@describes("LayerNormalization", "RMSNormalization")
class LayerNormalization(OperatorNode):
    """Statistics run over the axes from ``axis`` on; scale and bias broadcast to them."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        tie_broadcast(ties, self.in_data, out)
        for statistic in self.out_data[1:]:
            tie_broadcast(ties, [statistic], out)
        for dim in range(int(self.params.get("axis", -1)) % x.rank, x.rank):
            ties.renormalises(x.axis(dim))

    def zero_products(self) -> Products | None:
        return ((0, 1), (2,))


@describes("GroupNormalization")
class GroupNormalization(Normalization):
    """Channels are ``num_groups`` by channels a group; statistics run over the latter."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        tie_broadcast(ties, [x], out)
        groups = int(self.params["num_groups"])
        group, inner = ties.new_axis(groups), ties.new_axis(x.shape[1] // groups)
        ties.source(group)
        ties.source(inner)
        ties.view(x.axis(1), [group, inner])
        for node in self.in_data[1:]:
            if node is not None:
                ties.same(node.axis(0), x.axis(1) if node.shape[0] == x.shape[1] else group)
        if groups > 1:
            ties.change("num_groups", group)
        if x.shape[1] != groups:
            ties.renormalises(inner if groups > 1 else x.axis(1))
        for dim in range(2, x.rank):
            ties.renormalises(x.axis(dim))

    def zero_products(self) -> Products | None:
        return ((0, 1), (2,))


@describes("Softmax", "LogSoftmax", "Hardmax")
class Softmax(OperatorNode):
    """Element by element but for the normalised axis; until opset 12, all axes from it on."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        tie_broadcast(ties, [x], out)
        old = self.opset < 13
        axis = int(self.params.get("axis", 1 if old else -1)) % x.rank
        for dim in range(axis, x.rank if old else axis + 1):
            ties.renormalises(x.axis(dim))


@describes("MeanVarianceNormalization")
class AxesNormalization(Normalization):
    """Element by element but for the axes that the statistics run over."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        tie_broadcast(ties, [x], out)
        for axis in self.axes():
            if axis < x.rank:
                ties.renormalises(x.axis(axis))

    def axes(self) -> list[int]:
        return list(self.params.get("axes") or [0, 2, 3])

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("LpNormalization")
class LpNormalization(AxesNormalization):
    """Divides by a norm, which is zero where everything is."""

    poles = (0,)

    def axes(self) -> list[int]:
        return [int(self.params.get("axis", -1))]


@describes("LRN")
class LocalResponseNormalization(OperatorNode):
    """Each channel is divided by a window of its neighbours: none can go."""

    def ties(self, ties: Ties) -> None:
        x = self.in_data[0]
        assert x is not None
        tie_broadcast(ties, [x], self.out_data[0])
        self.opaque_axis(ties, x, 1, "each channel is normalised by its neighbours")

    def zero_products(self) -> Products | None:
        return ((0,),)
