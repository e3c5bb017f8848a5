"""Control flow: ``If``, ``Loop`` and ``Scan``, whose bodies are operators of the graph themselves.

The importer lists, behind an operator's own inputs, the values at its bodies' borders: what each body
takes in, then what it gives out. Ties through those borders make the bodies part of the network: both
branches of an ``If`` give what it returns, and what a loop carries is one thing before, in and after.
Sources: https://onnx.ai/onnx/operators/onnx__If.html, onnx__Loop.html, onnx__Scan.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.registry import describes

COUNTED = "iterations are counted along it"
DIFFERS = "the branches, or the iterations, give it different sizes"


class ControlFlow(OperatorNode):
    """What the families of control flow share: values that stand for one another."""

    def ties(self, ties: Ties) -> None:
        for node in (*self.in_data, *self.out_data):
            if node is not None:
                ties.free(*(node.axis(dim) for dim in range(node.rank)))
        self.tie_borders(ties)

    def tie_borders(self, ties: Ties) -> None:
        """Declare what passes through the bodies' borders."""
        raise NotImplementedError

    def ports(self) -> list[tuple[list[DataNode], list[DataNode]]]:
        """Return what each body takes in and gives out."""
        found = []
        position = len(self.proto.input)
        for name in ("then_branch", "else_branch", "body"):
            for attribute in self.proto.attribute:
                if attribute.name == name:
                    takes, gives = len(attribute.g.input), len(attribute.g.output)
                    inner = [node for node in self.in_data[position:] if node is not None]
                    found.append((inner[:takes], inner[takes : takes + gives]))
                    position += takes + gives
        return found

    def tie_alike(self, ties: Ties, nodes: Sequence[DataNode | None]) -> None:
        """Tie values that stand for one another; where their shapes differ, the axes stay."""
        present = [node for node in nodes if node is not None]
        ranks = {node.rank for node in present}
        if len(ranks) > 1 or not all(node.is_shaped for node in present):
            self.opaque(ties, DIFFERS, present)
            return
        for dim in range(ranks.pop() if ranks else 0):
            sizes = {node.shape[dim] for node in present}
            for node in present[1:]:
                if len(sizes) == 1:
                    ties.same(present[0].axis(dim), node.axis(dim))
            if len(sizes) > 1:
                for node in present:
                    self.opaque_axis(ties, node, dim, DIFFERS)

    def tie_along(
        self, ties: Ties, whole: DataNode | None, part: DataNode | None, axis: int
    ) -> None:
        """Tie a value to its slices along ``axis``, one an iteration."""
        if whole is None or part is None:
            return
        if not (whole.is_shaped and part.is_shaped) or whole.rank != part.rank + 1:
            self.opaque(ties, COUNTED, [whole, part])
            return
        along = axis % whole.rank
        self.opaque_axis(ties, whole, along, COUNTED)
        for dim in range(part.rank):
            ties.same(part.axis(dim), whole.axis(dim + (dim >= along)))


@describes("If")
class Branches(ControlFlow):
    """What it returns is what either branch gives."""

    def tie_borders(self, ties: Ties) -> None:
        branches = [gives for _, gives in self.ports()]
        for k in range(len(self.proto.output)):
            self.tie_alike(ties, [self.output(k), *(gives[k] for gives in branches)])


@describes("Loop")
class Loop(ControlFlow):
    """Carried values, then one slice an iteration of each further output."""

    def tie_borders(self, ties: Ties) -> None:
        ((takes, gives),) = self.ports()
        states = len(takes) - 2
        for k in range(states):
            self.tie_alike(ties, [self.input(2 + k), takes[2 + k], gives[1 + k], self.output(k)])
        for k, given in enumerate(gives[1 + states :]):
            self.tie_along(ties, self.output(states + k), given, 0)


@describes("Scan")
class Scan(ControlFlow):
    """As a loop along axes of some of its inputs."""

    def tie_borders(self, ties: Ties) -> None:
        ((takes, gives),) = self.ports()
        if len(takes) != len(self.proto.input):
            self.opaque(ties, "its first form carries batches that no rule follows")
            return
        scanned = int(self.params.get("num_scan_inputs", 0))
        states = len(takes) - scanned
        for k in range(states):
            self.tie_alike(ties, [self.input(k), takes[k], gives[k], self.output(k)])
        axes = self._axes("scan_input_axes", scanned)
        for k, taken in enumerate(takes[states:]):
            self.tie_along(ties, self.input(states + k), taken, axes[k])
        axes = self._axes("scan_output_axes", len(gives) - states)
        for k, given in enumerate(gives[states:]):
            self.tie_along(ties, self.output(states + k), given, axes[k])

    def _axes(self, name: str, count: int) -> list[int]:
        found: Any = self.params.get(name)
        return [int(axis) for axis in found] if found else [0] * count
