"""Attention with its heads inside the operator: ``Attention``, ``RotaryEmbedding``, ``LinearAttention``.

A packed axis of H * D slices is H heads by D dimensions: a view with two prunable factors. With
fewer key/value heads than query heads, the query heads are key/value heads by repetitions, so
that removing a key/value head removes the query heads that read it.
Sources: https://onnx.ai/onnx/operators/onnx__Attention.html and the pages beside it.
"""

from __future__ import annotations

from torchpruner_core.coupling.ties import Axis, Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.registry import describes


def tie_dims(ties: Ties, node: DataNode | None, axes: dict[int, Axis]) -> None:
    """Tie axes of ``node`` by dim; axes of one slice broadcast."""
    if node is not None:
        for dim, axis in axes.items():
            if node.shape[dim] != 1 or ties.lengths[axis] == 1:
                ties.same(node.axis(dim), axis)


def split_heads(ties: Ties, packed: Axis, heads: int) -> tuple[Axis, Axis]:
    """Return new axes ``(heads, dimensions)`` whose product is ``packed``."""
    head, inner = ties.new_axis(heads), ties.new_axis(ties.lengths[packed] // heads)
    for axis in (head, inner):
        ties.source(axis)
    ties.view(packed, [head, inner])
    return head, inner


def tie_repeats(ties: Ties, query_heads: Axis, kv_heads: Axis) -> None:
    """Tie query heads to the key/value heads they read, each read by as many in turn."""
    repeats = ties.new_axis(ties.lengths[query_heads] // max(ties.lengths[kv_heads], 1))
    if ties.lengths[kv_heads] > 1:
        ties.copy(repeats)
        ties.view(query_heads, [kv_heads, repeats])


def tie_mask(ties: Ties, mask: DataNode, axes: tuple[Axis, ...]) -> None:
    """Tie a mask that broadcasts from the right to ``axes``."""
    tie_dims(ties, mask, dict(enumerate(axes[len(axes) - mask.rank :])))


@describes("Attention")
class Attention(OperatorNode):
    """``softmax(Q K' * scale) V``, a head at a time; 3D inputs hold their heads packed."""

    def ties(self, ties: Ties) -> None:
        q, k, v, out = *self.in_data[:3], self.out_data[0]
        assert q is not None and k is not None and v is not None
        query, key, value, result = (self._axes(ties, node) for node in (q, k, v, out))
        batch, heads, length, size = query
        tie_repeats(ties, heads, key[1])
        for a, b in ((key[0], batch), (value[0], batch), (result[0], batch), (value[1], key[1])):
            ties.same(a, b)
        for a, b in ((result[1], heads), (result[2], length), (key[3], size), (value[2], key[2])):
            ties.same(a, b)
        ties.same(result[3], value[3])
        total = self._tie_cache(ties, key, value)
        mask, scores = self.input(3), self.output(3)
        if mask is not None:
            if mask.shape[-1] not in (1, ties.lengths[total]):
                self.opaque_axis(ties, mask, -1, "it is padded to the length of the keys")
                ties.opaque(total, f"the mask is padded to its length ({self.name})")
            else:
                tie_mask(ties, mask, (batch, heads, length, total))
        tie_dims(ties, scores, dict(enumerate((batch, heads, length, total))))
        lengths = self.input(6)
        tie_dims(ties, lengths, {0: batch})
        ties.renormalises(total)
        last = q.rank - 1
        ties.contracts(q.axis(last), k.axis(last), over=size)
        self._fix_positions(ties, (length, total), lengths is not None)
        for last_axis in (size, value[3]):
            ties.cost(2, [batch, heads, length, total, last_axis])

    def _axes(self, ties: Ties, node: DataNode) -> tuple[Axis, Axis, Axis, Axis]:
        """Return the axes (batch, heads, length, size) of a 4D or packed tensor."""
        if node.rank == 4:
            return node.axis(0), node.axis(1), node.axis(2), node.axis(3)
        of_query = node in (self.in_data[0], self.out_data[0])
        key = "q_num_heads" if of_query else "kv_num_heads"
        heads, size = split_heads(ties, node.axis(2), int(self.params[key]))
        if node in self.in_data[:2]:
            ties.change(key, heads)
        return node.axis(0), heads, node.axis(1), size

    def _tie_cache(self, ties: Ties, key: tuple[Axis, ...], value: tuple[Axis, ...]) -> Axis:
        """Tie past and present states; return the axis of all keys, those of the past first."""
        past, total = self.input(4), key[2]
        if past is not None:
            total = ties.new_axis(past.shape[2] + ties.lengths[key[2]])
            ties.run(total, past.shape[2], key[2], 0, ties.lengths[key[2]])
        for position, new in ((4, key), (5, value)):
            stored, present = self.input(position), self.output(position - 3)
            if stored is not None:
                ties.run(total, 0, stored.axis(2), 0, stored.shape[2])
            for node in (stored, present):
                tie_dims(ties, node, {0: new[0], 1: new[1], 3: new[3]})
            tie_dims(ties, present, {2: total})
        return total

    def _fix_positions(self, ties: Ties, axes: tuple[Axis, Axis], padded: bool) -> None:
        windows = ("left_window_size", "right_window_size")
        if padded or self.params.get("is_causal") or any(w in self.params for w in windows):
            for axis in axes:
                if ties.lengths[axis] > 1:
                    ties.opaque(axis, f"positions along it are compared ({self.name})")

    def zero_products(self) -> Products | None:
        return ((2,),)


@describes("RotaryEmbedding")
class RotaryEmbedding(OperatorNode):
    """Pairs of dimensions of each head turn by an angle that all heads share."""

    def ties(self, ties: Ties) -> None:
        x, cos, sin, out = *self.in_data[:3], self.out_data[0]
        assert x is not None and cos is not None and sin is not None
        for dim in range(x.rank):
            ties.same(x.axis(dim), out.axis(dim))
        if x.rank == 4:
            batch, length, size = x.axis(0), x.axis(2), x.axis(3)
        else:
            heads, size = split_heads(ties, x.axis(2), int(self.params["num_heads"]))
            ties.change("num_heads", heads)
            batch, length = x.axis(0), x.axis(1)
        positions = self.input(3)
        tie_dims(ties, positions, {0: batch, 1: length})
        half = cos.axis(-1)
        ties.same(sin.axis(-1), half)
        for table in (cos, sin):
            if positions is None:
                tie_dims(ties, table, {0: batch, 1: length})
            else:
                self.opaque_axis(ties, table, 0, "it is addressed by positions")
        self._tie_pairs(ties, size, half)

    def _tie_pairs(self, ties: Ties, size: Axis, half: Axis) -> None:
        turned = int(self.params.get("rotary_embedding_dim", 0))
        rotated = size
        if turned:
            rotated = ties.new_axis(turned)
            ties.run(size, 0, rotated, 0, turned)
            ties.change("rotary_embedding_dim", rotated)
        pair = ties.new_axis(2)
        ties.opaque(pair, f"dimensions turn in pairs ({self.name})")
        ties.view(rotated, [half, pair] if self.params.get("interleaved") else [pair, half])

    def zero_products(self) -> Products | None:
        return ((0,),)


@describes("LinearAttention")
class LinearAttention(OperatorNode):
    """A recurrence over positions, whose state is keys by values for each key/value head."""

    def ties(self, ties: Ties) -> None:
        q, k, v, out = *self.in_data[:3], self.output(0)
        assert q is not None and k is not None and v is not None and out is not None
        heads, size = split_heads(ties, q.axis(2), int(self.params["q_num_heads"]))
        kv_heads, key_size = split_heads(ties, k.axis(2), int(self.params["kv_num_heads"]))
        value_heads, value_size = split_heads(ties, v.axis(2), int(self.params["kv_num_heads"]))
        ties.view(out.axis(2), [heads, value_size])
        for a, b in ((size, key_size), (value_heads, kv_heads)):
            ties.same(a, b)
        tie_repeats(ties, heads, kv_heads)
        ties.change("q_num_heads", heads)
        ties.change("kv_num_heads", kv_heads)
        decay, beta, states = self.input(4), self.input(5), (self.input(3), self.output(1))
        if decay is not None:
            per_head = decay.shape[2] == ties.lengths[kv_heads]
            ties.view(decay.axis(2), [kv_heads] if per_head else [kv_heads, size])
        tie_dims(ties, beta, {2: kv_heads})
        for state in states:
            tie_dims(ties, state, {0: q.axis(0), 1: kv_heads, 2: size, 3: value_size})
        for node in (k, v, out, decay, beta):
            tie_dims(ties, node, {0: q.axis(0)})
        for node in (q, k, v, out, decay, beta):
            if node is not None:
                self.opaque_axis(ties, node, 1, "a recurrence runs along it")
        if states[0] is None:
            ties.contracts(k.axis(2), over=size)
        else:
            ties.renormalises(size)
        for side in (kv_heads, heads):
            ties.cost(2 * q.shape[1], [q.axis(0), side, size, value_size])

    def zero_products(self) -> Products | None:
        return ((2,), (3,))
