"""Recurrent layers: ``LSTM``, ``GRU`` and ``RNN``, one layer of one or two directions.

Shapes, with D directions, G gates, hidden size H, input size I: X (T, B, I), W (D, G*H, I),
R (D, G*H, H), B (D, 2*G*H), initial states (D, B, H), P (D, 3*H), Y (T, D, B, H).
Sources: https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html, onnx__RNN.html
"""

from __future__ import annotations

from torchpruner_core.coupling.ties import Axis, Ties
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.registry import describes


@describes("LSTM", "GRU", "RNN")
class Recurrent(OperatorNode):
    """A hidden unit is one row a gate of both weights, one column of R, and one entry of Y."""

    def ties(self, ties: Ties) -> None:
        x, w, r = self.in_data[0], self.in_data[1], self.in_data[2]
        assert x is not None and w is not None and r is not None
        time, batch = (1, 0) if self.params.get("layout") else (0, 1)
        hidden = r.axis(2)
        ties.source(hidden)
        ties.change("hidden_size", hidden)
        ties.same(x.axis(2), w.axis(2))
        for weight in (w, r, self.input(3), self.input(7)):
            if weight is not None:
                self._tie_gates(ties, weight.axis(1), hidden)
                self.opaque_axis(ties, weight, 0, "it counts directions")
        self.opaque_axis(ties, x, time, "a recurrence runs along it")
        states = [
            node for node in (self.input(5), self.input(6), *self.out_data[1:]) if node is not None
        ]
        for node in states:
            ties.same(node.axis(-1), hidden)
            direction, place = (1, 0) if self.params.get("layout") else (0, 1)
            ties.same(node.axis(place), x.axis(batch))
            self.opaque_axis(ties, node, direction, "it counts directions")
        out = self.out_data[0]
        if out.rank == 4:
            ties.same(out.axis(3), hidden)
            ties.same(out.axis(0 if not self.params.get("layout") else 1), x.axis(time))
            ties.same(out.axis(2 if not self.params.get("layout") else 0), x.axis(batch))
            self.opaque_axis(
                ties, out, 1 if not self.params.get("layout") else 2, "it counts directions"
            )
        elif out.rank == 3:
            ties.same(out.axis(2), hidden)
        steps = x.shape[time]
        for weight in (w, r):
            ties.cost(2 * steps, [x.axis(batch), *(weight.axis(dim) for dim in range(3))])

    def _tie_gates(self, ties: Ties, stacked: Axis, hidden: Axis) -> None:
        """Tie an axis that stacks one block of H a gate."""
        gates = ties.new_axis(ties.lengths[stacked] // ties.lengths[hidden])
        if ties.lengths[gates] > 1:
            ties.opaque(gates, f"it counts gates ({self.name})")
        ties.view(stacked, [gates, hidden])
