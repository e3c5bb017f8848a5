"""Fused operators that onnxruntime's optimiser writes into files, domain ``com.microsoft``.

ONNX has no schema for them, so each also says the shapes of its outputs. Attention and quantised
operators of that domain are in files of their own; those that no rule describes are opaque, each with
its reason.
Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import numpy as np

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.errors import GraphError
from torchpruner_core.graph.dtypes import UNKNOWN, read_type
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.convolution import Convolution
from torchpruner_core.operators.elementwise import tie_broadcast
from torchpruner_core.operators.matmul import Gemm, tie_matmul
from torchpruner_core.operators.registry import describes


def shape_as(
    operator: OperatorNode,
    op_type: str,
    positions: tuple[int, ...],
    *,
    dropped: tuple[str, ...] = (),
) -> None:
    """Give the first output the shape that ONNX's ``op_type`` has on the inputs at ``positions``.

    Raises ``GraphError`` where that does not follow from the inputs' shapes.
    """
    import onnx

    node = onnx.helper.make_node(op_type, [f"in{k}" for k in positions], ["out"])
    node.attribute.extend(a for a in operator.proto.attribute if a.name not in dropped)
    types = {}
    for k in positions:
        given = operator.input(k)
        if given is None or UNKNOWN in given.shape:
            raise GraphError(f"the shape of an input of {operator.name} is not known")
        types[f"in{k}"] = onnx.helper.make_tensor_type_proto(1, list(given.shape))
    schema = onnx.defs.get_schema(op_type, 17, "")
    found = onnx.shape_inference.infer_node_outputs(schema, node, types)
    shape, _ = read_type(found["out"])
    out = operator.out_data[0]
    out.shape = shape or ()


@describes(
    "com.microsoft::Gelu com.microsoft::QuickGelu com.microsoft::BiasGelu com.microsoft::FastGelu"
)
class FusedGelu(OperatorNode):
    """Gelu, of the sum with a bias where there is one."""

    def ties(self, ties: Ties) -> None:
        tie_broadcast(ties, self.in_data, self.out_data[0])

    def fill_shape(self) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        out.shape, out.dtype = x.shape, x.dtype

    def zero_products(self) -> Products | None:
        return ((0,), (1,))


@describes("com.microsoft::SkipLayerNormalization com.microsoft::SkipSimplifiedLayerNormalization")
class SkipNormalization(OperatorNode):
    """Layer or RMS normalisation of a sum; the sum itself may be the fourth output."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        total = self.output(3)
        tie_broadcast(ties, self.in_data, out)
        if total is not None:
            tie_broadcast(ties, [total], out)
        for statistic in (self.output(1), self.output(2)):
            if statistic is not None:
                tie_broadcast(ties, [statistic], out)
        ties.renormalises(x.axis(-1))

    def fill_shape(self) -> None:
        x = self.in_data[0]
        assert x is not None
        for node in self.out_data:
            node.shape, node.dtype = x.shape, x.dtype
        for statistic in (self.output(1), self.output(2)):
            if statistic is not None:
                statistic.shape, statistic.dtype = (*x.shape[:-1], 1), "float32"


@describes("com.microsoft::BiasAdd com.microsoft::BiasDropout")
class FusedSum(OperatorNode):
    """A sum with a bias and a residual; dropout does nothing when the model is used."""

    def ties(self, ties: Ties) -> None:
        for out in self.out_data:
            tie_broadcast(ties, self.in_data[:3], out)

    def fill_shape(self) -> None:
        x = self.in_data[0]
        assert x is not None
        for out in self.out_data:
            out.shape, out.dtype = x.shape, x.dtype
        mask = self.output(1)
        if mask is not None:
            mask.dtype = "bool"

    def zero_products(self) -> Products | None:
        return ((0,), (1,), (2,))


FUSED = (
    "activation",
    "activation_params",
    "activation_alpha",
    "activation_beta",
    "activation_gamma",
)


@describes("com.microsoft::FusedConv")
class FusedConvolution(Convolution):
    """A convolution, a sum with what is as large as its result, and an activation."""

    def ties(self, ties: Ties) -> None:
        super().ties(ties)
        tie_broadcast(ties, [self.input(3)], self.out_data[0])

    def fill_shape(self) -> None:
        shape_as(self, "Conv", (0, 1), dropped=FUSED)

    def zero_products(self) -> Products | None:
        return ((1,), (2,), (3,)) if _keeps_zero(self) else None


@describes("com.microsoft::FusedGemm")
class FusedLinear(Gemm):
    """A ``Gemm`` and an activation."""

    def fill_shape(self) -> None:
        shape_as(self, "Gemm", (0, 1), dropped=FUSED)

    def zero_products(self) -> Products | None:
        return super().zero_products() if _keeps_zero(self) else None


def _keeps_zero(operator: OperatorNode) -> bool:
    return str(operator.params.get("activation", "Relu")) in (
        "Relu",
        "LeakyRelu",
        "Tanh",
        "HardSwish",
    )


@describes("com.microsoft::GemmFastGelu")
class LinearGelu(OperatorNode):
    """A matrix product, a bias and a Gelu."""

    def ties(self, ties: Ties) -> None:
        a, b, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert a is not None and b is not None
        tie_matmul(ties, a, b, out)
        tie_broadcast(ties, [self.input(2)], out)

    def fill_shape(self) -> None:
        shape_as(self, "MatMul", (0, 1))

    def zero_products(self) -> Products | None:
        return ((0, 1), (2,))


@describes("com.microsoft::GroupNorm com.microsoft::SkipGroupNorm")
class FusedGroupNorm(OperatorNode):
    """Channels, the last axis or the second, are groups by channels a group."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        last = bool(self.params.get("channels_last", 1))
        channel = x.rank - 1 if last else 1
        tie_broadcast(ties, [x, *self.out_data[1:]], out)
        groups = int(self.params["groups"])
        group, inner = ties.new_axis(groups), ties.new_axis(x.shape[channel] // groups)
        ties.source(group)
        ties.source(inner)
        ties.view(x.axis(channel), [group, inner])
        for node in (self.in_data[1], self.in_data[2], self.input(4)):
            if node is not None:
                ties.same(node.axis(0), x.axis(channel))
        skip = self.input(3)
        if skip is not None:
            for dim in range(skip.rank):
                if skip.shape[dim] == x.shape[dim] and skip.rank == x.rank:
                    ties.same(skip.axis(dim), x.axis(dim))
            if skip.rank != x.rank:
                ties.same(skip.axis(-1), x.axis(channel))
                ties.same(skip.axis(0), x.axis(0))
        if groups > 1:
            ties.change("groups", group)
        if x.shape[channel] != groups:
            ties.renormalises(inner if groups > 1 else x.axis(channel))
        for dim in range(1, x.rank):
            if dim != channel:
                self.opaque_axis(ties, x, dim, "a normalisation runs over positions")

    def fill_shape(self) -> None:
        x = self.in_data[0]
        assert x is not None
        for out in self.out_data:
            out.shape, out.dtype = x.shape, x.dtype


@describes("com.microsoft::MoE")
class MixtureOfExperts(OperatorNode):
    """Experts, each an MLP whose weights are slices of one tensor; a router chooses among them.

    With a fused SwiGLU, the first weight holds gate and value of each hidden unit, in turn or one behind
    the other.
    """

    def ties(self, ties: Ties) -> None:
        x, router, first, _, second = (self.input(k) for k in range(5))
        assert x is not None and router is not None and first is not None and second is not None
        model, hidden, experts = x.axis(-1), second.axis(2), second.axis(0)
        self.opaque_axis(ties, second, 0, "a fixed number of experts is chosen from it")
        for node, axes in (
            (router, {-1: experts}),
            (first, {0: experts, 2: model}),
            (self.input(3), {0: experts}),
            (second, {1: model}),
            (self.input(5), {0: experts, 1: model}),
            (self.input(6), {0: experts, 1: hidden, 2: model}),
            (self.input(7), {0: experts, 1: hidden}),
            (self.out_data[0], {-1: model}),
        ):
            if node is not None:
                for dim, axis in axes.items():
                    ties.same(node.axis(dim), axis)
        for node in (first, self.input(3)):
            if node is not None:
                self._tie_fused(ties, node.axis(1), hidden)
        out = self.out_data[0]
        for dim in range(x.rank - 1):
            ties.same(x.axis(dim), out.axis(dim))
        if x.rank == 2:
            ties.same(router.axis(0), x.axis(0))
        else:
            ties.view(router.axis(0), [x.axis(0), x.axis(1)])
        ties.contracts(x.axis(-1), first.axis(2))
        for weight in (first, second):
            ties.cost(2, [router.axis(0), weight.axis(1), weight.axis(2)])

    def _tie_fused(self, ties: Ties, rows: int, hidden: int) -> None:
        ratio = ties.lengths[rows] // ties.lengths[hidden]
        if ratio == 1:
            ties.same(rows, hidden)
            return
        fused = ties.new_axis(ratio)
        ties.opaque(fused, f"it counts gate and value ({self.name})")
        interleaved = int(self.params.get("swiglu_fusion", 0)) == 1
        ties.view(rows, [hidden, fused] if interleaved else [fused, hidden])

    def fill_shape(self) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        out.shape, out.dtype = x.shape, x.dtype

    def zero_products(self) -> Products | None:
        return ((4,), (5,))


@describes(
    "com.microsoft::FusedMatMul com.microsoft::TransposeMatMul com.microsoft::FusedMatMulActivation"
)
class FusedMatMul(OperatorNode):
    """``alpha * A' @ B'``, either transposed in its last two axes."""

    def ties(self, ties: Ties) -> None:
        a, b, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert a is not None and b is not None
        if self.params.get("transBatchA") or self.params.get("transBatchB"):
            self.opaque(ties, "batches are transposed inside it")
            return
        rows, inner = (-1, -2) if self.params.get("transA") else (-2, -1)
        inner_b, columns = (-1, -2) if self.params.get("transB") else (-2, -1)
        contracted = a.axis(inner), b.axis(inner_b)
        ties.same(*contracted)
        ties.contracts(*contracted)
        ties.same(a.axis(rows), out.axis(-2))
        ties.same(b.axis(columns), out.axis(-1))
        for operand in (a, b):
            for dim in range(operand.rank - 2):
                target = out.rank - operand.rank + dim
                if operand.shape[dim] != 1 or out.shape[target] == 1:
                    ties.same(operand.axis(dim), out.axis(target))
        ties.cost(2, [*(out.axis(dim) for dim in range(out.rank)), contracted[0]])

    def fill_shape(self) -> None:
        a, b, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert a is not None and b is not None
        rows = a.shape[-1 if self.params.get("transA") else -2]
        columns = b.shape[-2 if self.params.get("transB") else -1]
        out.shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), rows, columns)
        out.dtype = a.dtype

    def zero_products(self) -> Products | None:
        keeps = self.type != "FusedMatMulActivation" or _keeps_zero(self)
        return ((0, 1),) if keeps else None
