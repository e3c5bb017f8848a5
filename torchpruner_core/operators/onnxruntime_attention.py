"""Attention as onnxruntime fuses it, domain ``com.microsoft``: packed weights, heads inside.

Positions are compared, masked and cached inside these operators and stay; heads, the dimensions of a
head and what enters are prunable.
Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import numpy as np

from torchpruner_core.coupling.ties import Axis, Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.attention import (
    RotaryEmbedding,
    split_heads,
    tie_dims,
    tie_repeats,
)
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.elementwise import tie_broadcast
from torchpruner_core.operators.quantization import is_centred
from torchpruner_core.operators.registry import describes

POSITIONS = "positions along it are compared"


def stack(ties: Ties, whole: Axis, parts: list[Axis]) -> None:
    """Declare ``whole`` to be ``parts``, one behind the other."""
    start = 0
    for part in parts:
        ties.run(whole, start, part, 0, ties.lengths[part])
        start += ties.lengths[part]


class FusedAttention(OperatorNode):
    """What the fused attentions share: caches, masks and biases of the scores."""

    cache_first = 0
    """How many axes stand before the batch in a cache."""

    def tie_positions(self, ties: Ties, *nodes: DataNode | None) -> None:
        for node in nodes:
            if node is not None and node.rank > 1:
                self.opaque_axis(ties, node, 1, POSITIONS)

    def tie_mask(self, ties: Ties, mask: DataNode | None, batch: Axis) -> None:
        """Tie what says which positions count: one entry, or one row, a sequence of the batch."""
        if mask is None:
            return
        self.opaque(ties, "it says which positions count", [mask])
        if mask.shape[0] != 1 and ties.lengths[batch] != 1:
            ties.opaque(batch, f"a mask has rows for it ({self.name})")

    def tie_scores(self, ties: Ties, node: DataNode | None, batch: Axis, heads: Axis) -> None:
        """Tie a bias of the scores: (batch or 1, heads or 1, positions, positions)."""
        if node is not None:
            tie_dims(ties, node, {0: batch, 1: heads})
            for dim in range(2, node.rank):
                self.opaque_axis(ties, node, dim, POSITIONS)

    def tie_cache(self, ties: Ties, node: DataNode | None, axes: tuple[Axis, Axis, Axis]) -> None:
        """Tie past or present states: (batch, heads, positions, size), keys and values stacked before."""
        if node is None or node.rank < 4:
            return
        first = node.rank - 4
        for dim in range(first):
            self.opaque_axis(ties, node, dim, "it holds keys and values")
        batch, heads, size = axes
        tie_dims(ties, node, {first: batch, first + 1: heads, first + 3: size})
        self.opaque_axis(ties, node, first + 2, POSITIONS)

    def add_cost(
        self, ties: Ties, batch: Axis, heads: Axis, lengths: tuple[int, int], sizes: list[Axis]
    ) -> None:
        for size in sizes:
            ties.cost(2 * lengths[0] * lengths[1], [batch, heads, size])


@describes("com.microsoft::Attention com.microsoft::QAttention")
class PackedAttention(FusedAttention):
    """One weight projects the input to queries, keys and values, each heads by dimensions."""

    def ties(self, ties: Ties) -> None:
        x, weight, bias, out = *self.in_data[:2], self.input(2), self.out_data[0]
        assert x is not None and weight is not None
        quantised = self.type == "QAttention"
        ties.same(x.axis(0), out.axis(0))
        ties.same(x.axis(-1), weight.axis(0))
        ties.contracts(x.axis(-1), weight.axis(0))
        self.tie_positions(ties, x, out)
        heads_count = int(self.params["num_heads"])
        sizes = self.sizes(weight.shape[1])
        query, key, value = (ties.new_axis(size) for size in sizes)
        heads, size = split_heads(ties, query, heads_count)
        ties.view(key, [heads, size])
        value_size = ties.new_axis(sizes[2] // heads_count)
        ties.source(value_size)
        ties.view(value, [heads, value_size])
        ties.same(out.axis(-1), value)
        ties.change("num_heads", heads)
        if "qkv_hidden_sizes" in self.params:
            for k, axis in enumerate((query, key, value)):
                ties.change("qkv_hidden_sizes", axis, k, 3)
        else:
            ties.same(size, value_size)  # the operator divides the weight into thirds
        stacked = [weight.axis(1), *([] if bias is None else [bias.axis(0)])]
        for position in (4, 7) if quantised else ():
            scale = self.input(position)
            if scale is not None and scale.shape not in ((), (1,)):
                stacked.append(scale.axis(0))
        for whole in stacked:
            stack(ties, whole, [query, key, value])
        if quantised and not is_centred(self, 7):
            ties.renormalises(x.axis(-1))
        mask, past = self.input(5 if quantised else 3), self.input(8 if quantised else 4)
        self.tie_mask(ties, mask, x.axis(0))
        cache = (x.axis(0), heads, size)
        for node in (past, self.output(1)):
            self.tie_cache(ties, node, cache)
        if past is not None or self.output(1) is not None:
            ties.same(size, value_size)
        if not quantised:
            self.tie_scores(ties, self.input(5), x.axis(0), heads)
        if not weight.is_terminal():
            ties.renormalises(size)
        ties.cost(2, [x.axis(0), x.axis(1), x.axis(-1), weight.axis(1)])
        length = x.shape[1]
        self.add_cost(ties, x.axis(0), heads, (length, length), [size, value_size])

    def sizes(self, packed: int) -> list[int]:
        """Return how wide queries, keys and values are."""
        stated = self.params.get("qkv_hidden_sizes")
        return [int(size) for size in stated] if stated else [packed // 3] * 3

    def fill_shape(self) -> None:
        x, weight, out = self.in_data[0], self.in_data[1], self.out_data[0]
        assert x is not None and weight is not None
        sizes = self.sizes(weight.shape[1])
        out.shape, out.dtype = (*x.shape[:2], sizes[2]), x.dtype
        if self.type == "QAttention":
            scale = self.in_data[3]
            out.dtype = "float32" if scale is None else scale.dtype
        present, heads = self.output(1), int(self.params["num_heads"])
        past = self.input(8 if self.type == "QAttention" else 4)
        if present is not None:
            total = x.shape[1] + (past.shape[3] if past is not None else 0)
            present.shape = (2, x.shape[0], heads, total, sizes[0] // heads)
            present.dtype = out.dtype

    def zero_products(self) -> Products | None:
        return ((1,), (2,)) if self.type == "Attention" else None


@describes("com.microsoft::MultiHeadAttention")
class MultiHeadAttention(FusedAttention):
    """Queries, keys and values come projected, packed or one by one; a bias is added first."""

    def ties(self, ties: Ties) -> None:
        q, k, v, out = self.in_data[0], self.input(1), self.input(2), self.out_data[0]
        assert q is not None
        batch = q.axis(0)
        if q.rank == 5:
            heads, size = q.axis(2), q.axis(4)
            self.opaque_axis(ties, q, 3, "it holds queries, keys and values")
        else:
            heads, size = split_heads(ties, q.axis(2), int(self.params["num_heads"]))
        ties.change("num_heads", heads)
        value_size = size
        if k is not None:
            if k.rank == 5:
                tie_dims(ties, k, {2: heads, 4: size})
                self.opaque_axis(ties, k, 3, "it holds keys and values")
            elif k.rank == 4:
                tie_dims(ties, k, {1: heads, 3: size})
            else:
                ties.view(k.axis(2), [heads, size])
        if v is not None:
            value_size = ties.new_axis(v.shape[-1] // (1 if v.rank == 4 else ties.lengths[heads]))
            ties.source(value_size)
            if v.rank == 4:
                tie_dims(ties, v, {1: heads, 3: value_size})
            else:
                ties.view(v.axis(2), [heads, value_size])
        ties.view(out.axis(2), [heads, value_size])
        for node in (k, v, out):
            tie_dims(ties, node, {0: batch})
        self.tie_positions(ties, q, out)
        for node in (k, v):
            if node is not None:
                self.opaque_axis(ties, node, 2 if node.rank == 4 else 1, POSITIONS)
        self._tie_bias(ties, heads, size, value_size)
        self.tie_mask(ties, self.input(4), batch)
        self.tie_scores(ties, self.input(5), batch, heads)
        self.tie_scores(ties, self.output(3), batch, heads)
        for position, last in ((6, size), (7, value_size)):
            self.tie_cache(ties, self.input(position), (batch, heads, last))
        for position, last in ((1, size), (2, value_size)):
            self.tie_cache(ties, self.output(position), (batch, heads, last))
        last_axis = q.axis(q.rank - 1)
        second = last_axis if k is None else k.axis(k.rank - 1)
        ties.contracts(last_axis, second, over=size)
        lengths = q.shape[1], q.shape[1] if k is None else k.shape[2 if k.rank == 4 else 1]
        self.add_cost(ties, batch, heads, lengths, [size, value_size])

    def _tie_bias(self, ties: Ties, heads: Axis, size: Axis, value_size: Axis) -> None:
        bias = self.input(3)
        if bias is None:
            return
        count = ties.lengths[heads]
        parts = [ties.new_axis(count * ties.lengths[last]) for last in (size, size, value_size)]
        for part, last in zip(parts, (size, size, value_size), strict=True):
            ties.view(part, [heads, last])
        stack(ties, bias.axis(0), parts)

    def fill_shape(self) -> None:
        q, k, v, out = self.in_data[0], self.input(1), self.input(2), self.out_data[0]
        assert q is not None
        heads = int(self.params["num_heads"])
        size = q.shape[4] if q.rank == 5 else q.shape[2] // heads
        value_size = size
        if v is not None:
            value_size = v.shape[3] if v.rank == 4 else v.shape[2] // heads
        out.shape, out.dtype = (*q.shape[:2], heads * value_size), q.dtype
        length = q.shape[1] if k is None else k.shape[2 if k.rank == 4 else 1]
        past = self.input(6)
        total = length + (0 if past is None else past.shape[2])
        for position, last in ((1, size), (2, value_size)):
            present = self.output(position)
            if present is not None:
                present.shape, present.dtype = (q.shape[0], heads, total, last), q.dtype
        scores = self.output(3)
        if scores is not None:
            scores.shape, scores.dtype = (q.shape[0], heads, q.shape[1], total), q.dtype

    def zero_products(self) -> Products | None:
        k, v = self.input(1), self.input(2)
        position = 2 if v is not None else 1 if k is not None else 0
        return ((position,), (3,))


@describes("com.microsoft::GroupQueryAttention")
class GroupQueryAttention(FusedAttention):
    """Query heads share key/value heads; the kernels take head sizes in steps of 8, which stay."""

    def ties(self, ties: Ties) -> None:
        q, k, v, out = self.in_data[0], self.input(1), self.input(2), self.out_data[0]
        assert q is not None
        count, kv_count = int(self.params["num_heads"]), int(self.params["kv_num_heads"])
        batch = q.axis(0)
        query, key, value = q.axis(2), -1, -1
        if k is not None and v is not None:
            key, value = k.axis(2), v.axis(2)
        else:
            size = q.shape[2] // (count + 2 * kv_count)
            query = ties.new_axis(count * size)
            key, value = ties.new_axis(kv_count * size), ties.new_axis(kv_count * size)
            stack(ties, q.axis(2), [query, key, value])
        heads, dims = split_heads(ties, query, count)
        kv_heads = ties.new_axis(kv_count)
        ties.source(kv_heads)
        ties.opaque(dims, f"the kernels take head sizes in steps of 8 ({self.name})")
        for packed in (key, value):
            ties.view(packed, [kv_heads, dims])
        ties.view(out.axis(2), [heads, dims])
        tie_repeats(ties, heads, kv_heads)
        ties.change("num_heads", heads)
        ties.change("kv_num_heads", kv_heads)
        for node in (k, v, out):
            tie_dims(ties, node, {0: batch})
        self.tie_positions(ties, q, k, v, out)
        for node in (self.input(3), self.input(4), self.output(1), self.output(2)):
            self.tie_cache(ties, node, (batch, kv_heads, dims))
        tie_dims(ties, self.input(5), {0: batch})
        for position in (7, 8):
            table = self.input(position)
            if table is not None:
                self.opaque(ties, "it is addressed by positions", [table])
        self.tie_scores(ties, self.input(10), batch, heads)
        tie_dims(ties, self.input(11), {0: heads})
        for position in (9, 12, 13, 14, 15):
            given = self.input(position)
            if given is not None:
                self.opaque(ties, "it is read by position, or once for all heads", [given])
        length = q.shape[1]
        self.add_cost(ties, batch, heads, (length, length), [dims, dims])

    def fill_shape(self) -> None:
        q, k, out = self.in_data[0], self.input(1), self.out_data[0]
        assert q is not None
        count, kv_count = int(self.params["num_heads"]), int(self.params["kv_num_heads"])
        size = q.shape[2] // (count if k is not None else count + 2 * kv_count)
        out.shape, out.dtype = (*q.shape[:2], count * size), q.dtype
        past = self.input(3)
        known = self.value(6)
        for position in (1, 2):
            present = self.output(position)
            if present is not None:
                total = q.shape[1] if past is None else past.shape[2] + q.shape[1]
                if known is not None:
                    total = max(int(np.max(known)), 0 if past is None else past.shape[2])
                present.shape, present.dtype = (q.shape[0], kv_count, total, size), q.dtype

    def zero_products(self) -> Products | None:
        return ((2,),) if self.input(2) is not None else ((0,),)


@describes("com.microsoft::RotaryEmbedding")
class FusedRotaryEmbedding(RotaryEmbedding):
    """As ONNX's, with the positions before the tables; the table's width says a head's size."""

    def ties(self, ties: Ties) -> None:
        x, positions, cos, sin = self.in_data[:4]
        out = self.out_data[0]
        assert x is not None and positions is not None and cos is not None and sin is not None
        for dim in range(x.rank):
            ties.same(x.axis(dim), out.axis(dim))
        if x.rank == 4:
            batch, size = x.axis(0), x.axis(3)
            self.opaque_axis(ties, x, 2, POSITIONS)
        else:
            stated = int(self.params.get("num_heads", 0))
            count = stated or x.shape[2] // (2 * cos.shape[1])
            heads, size = split_heads(ties, x.axis(2), count)
            if stated:
                ties.change("num_heads", heads)
            batch = x.axis(0)
            self.opaque_axis(ties, x, 1, POSITIONS)
        if positions.rank == 2:
            tie_dims(ties, positions, {0: batch})
            self.opaque_axis(ties, positions, 1, POSITIONS)
        ties.same(sin.axis(-1), cos.axis(-1))
        for table in (cos, sin):
            self.opaque_axis(ties, table, 0, "it is addressed by positions")
        self._tie_pairs(ties, size, cos.axis(-1))

    def fill_shape(self) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        out.shape, out.dtype = x.shape, x.dtype


@describes("com.microsoft::EmbedLayerNormalization")
class EmbedLayerNormalization(OperatorNode):
    """Words, positions and segments looked up, added, and normalised."""

    def ties(self, ties: Ties) -> None:
        ids, words, out = self.in_data[0], self.in_data[2], self.out_data[0]
        assert ids is not None and words is not None
        hidden = words.axis(1)
        ties.source(hidden)
        for position in (2, 3, 4):
            table = self.input(position)
            if table is not None:
                ties.same(table.axis(1), hidden)
                self.opaque_axis(ties, table, 0, "it is addressed by data")
        for position in (5, 6):
            node = self.input(position)
            if node is not None:
                ties.same(node.axis(0), hidden)
        for node in (out, self.output(2)):
            tie_dims(ties, node, {0: ids.axis(0), 2: hidden})
            self.tie_length(ties, node, 1)
        for position in (0, 1, 7, 8):
            node = self.input(position)
            tie_dims(ties, node, {0: ids.axis(0)})
            self.tie_length(ties, node, 1)
        tie_dims(ties, self.output(1), {0: ids.axis(0)})
        ties.renormalises(hidden)

    def tie_length(self, ties: Ties, node: DataNode | None, dim: int) -> None:
        if node is not None:
            self.opaque_axis(ties, node, dim, POSITIONS)

    def fill_shape(self) -> None:
        ids, words = self.in_data[0], self.in_data[2]
        assert ids is not None and words is not None
        for node in (self.output(0), self.output(2)):
            if node is not None:
                node.shape, node.dtype = (*ids.shape, words.shape[1]), words.dtype
        mask = self.output(1)
        if mask is not None:
            mask.shape, mask.dtype = (ids.shape[0],), "int32"


@describes("com.microsoft::BiasSoftmax")
class BiasSoftmax(OperatorNode):
    """A softmax over the axes from ``axis`` on, of a sum."""

    def ties(self, ties: Ties) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        tie_broadcast(ties, self.in_data, out)
        for dim in range(int(self.params.get("axis", 1)) % x.rank, x.rank):
            ties.renormalises(x.axis(dim))

    def fill_shape(self) -> None:
        x, out = self.in_data[0], self.out_data[0]
        assert x is not None
        out.shape, out.dtype = x.shape, x.dtype
