"""Recurrent layers: ``LSTM``, ``GRU`` and ``RNN``, one layer of one or two directions.

Shapes, with D directions, G gates, hidden size H, input size I: X (T, B, I), W (D, G*H, I),
R (D, G*H, H), B (D, 2*G*H), initial states (D, B, H), P (D, 3*H), Y (T, D, B, H).
Sources: https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html, onnx__RNN.html
"""

from __future__ import annotations

from collections.abc import Sequence

from torchpruner_core.coupling.ties import Axis, Ties
from torchpruner_core.operators.base import OperatorNode, Products
from torchpruner_core.operators.registry import describes

KEEPS_ZERO = frozenset(
    {"tanh", "relu", "leakyrelu", "thresholdedrelu", "elu", "softsign", "scaledtanh"}
)
"""Activations that are zero at zero."""

CANDIDATES = {"LSTM": (1, 2), "GRU": (1,), "RNN": (0,)}
"""Which activations of a direction make the state; the others are gates."""


@describes("LSTM", "GRU", "RNN")
class Recurrent(OperatorNode):
    """A hidden unit is one row a gate of both weights, one column of R, and one entry of Y."""

    outputs_alike = True

    def ties(self, ties: Ties) -> None:
        x, w, r = self.in_data[0], self.in_data[1], self.in_data[2]
        assert x is not None and w is not None and r is not None
        batch_first = bool(self.params.get("layout"))
        time, batch = (1, 0) if batch_first else (0, 1)
        hidden = r.axis(2)
        ties.source(hidden)
        if "hidden_size" in self.params:
            ties.change("hidden_size", hidden)
        ties.same(x.axis(2), w.axis(2))
        ties.contracts(x.axis(2), w.axis(2))
        for weight in (w, r, self.input(3), self.input(7)):
            if weight is not None:
                self._tie_gates(ties, weight.axis(1), hidden)
                self.opaque_axis(ties, weight, 0, "it counts directions")
        self.opaque_axis(ties, x, time, "a recurrence runs along it")
        lengths, out = self.input(4), self.output(0)
        if lengths is not None:
            ties.same(lengths.axis(0), x.axis(batch))
        direction, place = (1, 0) if batch_first else (0, 1)
        for node in (self.input(5), self.input(6), self.output(1), self.output(2)):
            if node is not None:
                ties.same(node.axis(2), hidden)
                ties.same(node.axis(place), x.axis(batch))
                self.opaque_axis(ties, node, direction, "it counts directions")
        if out is not None:
            ties.same(out.axis(3), hidden)
            ties.same(out.axis(time), x.axis(time))
            ties.same(out.axis(0 if batch_first else 2), x.axis(batch))
            self.opaque_axis(ties, out, 2 if batch_first else 1, "it counts directions")
        for weight in (w, r):
            axes = (weight.axis(dim) for dim in range(3))
            ties.cost(2 * x.shape[time], [x.axis(batch), *axes])

    def _tie_gates(self, ties: Ties, stacked: Axis, hidden: Axis) -> None:
        """Tie an axis that stacks one block of H a gate."""
        gates = ties.new_axis(ties.lengths[stacked] // ties.lengths[hidden])
        if ties.lengths[gates] > 1:
            ties.opaque(gates, f"it counts gates ({self.name})")
        ties.view(stacked, [gates, hidden])

    def zero_products(self) -> Products | None:
        given = [str(name).lower() for name in _strings(self.params.get("activations", ()))]
        width = {"LSTM": 3, "GRU": 2, "RNN": 1}[self.type]
        states = [name for k, name in enumerate(given) if k % width in CANDIDATES[self.type]]
        if not KEEPS_ZERO.issuperset(states):
            return None
        return ((1,), (2,), (3,), (5,), (6,))


def _strings(values: Sequence[str | bytes]) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else value for value in values]
