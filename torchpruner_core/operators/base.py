"""What every operator offers, and how a family is written.

A family subclasses :class:`OperatorNode` and declares its ties in ``ties``; FLOPs follow from the
costs it declares there. An operator whose class only has the manual's ``analysis`` takes part
too: its ties are read off by asking ``analysis`` about each slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.graph.mask import Mask

if TYPE_CHECKING:
    from torchpruner_core.coupling.ties import Ties
    from torchpruner_core.graph.nodes import DataNode
    from torchpruner_core.graph.values import Values

Products = tuple[tuple[int, ...], ...]
"""Input positions: a sum of products."""

Analysis = tuple["dict[str, Mask] | None", "dict[str, int] | None"]


class OperatorNode:
    """One operator: its attributes, what it reads and what it computes.

    ``name`` is ``'<module>.<Type>'``; ``params`` maps attribute names to Python values; ``in_data``
    holds ``None`` where an optional input is left out. ``protocal`` is ``'onnx'``.
    """

    protocal = "onnx"
    device = "CPU"
    is_constant = False
    """Whether what it computes follows from constants and shapes alone, whatever the input."""
    poles: tuple[int, ...] = ()
    """Inputs whose zeros make the output infinite or undefined: a divisor."""
    outputs_alike = False
    """Whether what :meth:`zero_products` says holds for every output, not for the first alone."""

    def __init__(self, node: Any) -> None:
        """Take over ``node``'s identity: another operator node, or the importer's record of one."""
        self.name: str = node.name
        self.type: str = node.type
        self.module: str = node.module
        self.params: dict[str, Any] = node.params
        self.in_data: list[DataNode | None] = node.in_data
        self.out_data: list[DataNode] = node.out_data
        self.position: int = node.position
        self.values: Values = node.values
        self.proto: Any = node.proto

    def ties(self, ties: Ties) -> None:
        """Declare what goes together between this operator's tensors.

        A class that overrides only :meth:`analysis` is asked about every slice instead.
        """
        if type(self).analysis is not OperatorNode.analysis:
            from torchpruner_core.operators.custom import ties_from_analysis

            ties_from_analysis(self, ties)
        else:
            self.opaque(
                ties,
                f"no rule describes the operator {self.type}; register a class for it with "
                f"operator_reg.regist({self.type!r}, ...)",
            )

    def declare(self, ties: Ties, position: int) -> None:
        """Let :meth:`ties` declare as the graph's operator number ``position``.

        Axes that it says nothing about cannot be shortened: the operator reads them as a setting
        (a shape, bounds, a count), or its rule has a gap.
        """
        ties.begin(position)
        nodes = [node for node in (*self.in_data, *self.out_data) if node is not None]
        described = type(self).ties is not OperatorNode.ties
        if described and not all(node.is_shaped for node in nodes):
            self.opaque(ties, "the rank of what it reads or computes is not known")
            return
        self.ties(ties)
        mentioned = ties.mentioned
        for node in nodes:
            for dim, size in enumerate(node.shape):
                if size != 1 and node.first_axis + dim not in mentioned:
                    self.opaque_axis(ties, node, dim, "it is a setting of the operator")

    def zero_products(self) -> Products | None:
        """Return products of inputs, by position, that are all zero only where the output is.

        ``((0, 1), (2,))`` reads: the output is zero where input 0 or 1 is, and input 2 is too.
        ``None``, the default, says that zeros do not stay zeros. Inputs that are left out are
        skipped. Read by :mod:`torchpruner_core.importing.zeros`.
        """
        return None

    def flops(self) -> int:
        """Return the FLOPs of this operator, two a multiply-accumulate.

        Convolutions, matrix products and attention count, as in ``torch.utils.flop_counter``.
        """
        from torchpruner_core.coupling.ties import Ties

        ties = Ties()
        self._number_axes(ties)
        self.declare(ties, 0)
        total = 0
        for _, factor, axes in ties.costs:
            for axis in axes:
                factor *= ties.lengths[axis]
            total += factor
        return total

    def analysis(self, node: DataNode, mask: Mask) -> Analysis:
        """Return what ``mask`` on ``node`` means for the neighbours: ``({name: Mask}, changes)``.

        Derived from :meth:`ties`, solved for this operator alone; ambiguous splits take the inner
        factor. ``changes`` maps attribute names to what to subtract, or is ``None``. Raises
        ``CutError`` where this operator cannot follow.
        """
        from torchpruner_core.operators.custom import analyse_alone

        return analyse_alone(self, node, mask)

    def fill_shape(self) -> None:
        """Set the outputs' shapes from the inputs' shapes and constants, by ONNX's own rules."""
        from torchpruner_core.importing.shapes import infer_outputs

        for node, (shape, dtype) in zip(self.out_data, infer_outputs(self), strict=True):
            node.shape, node.dtype = shape, dtype

    def fill_value(self) -> None:
        """Compute the outputs' data from the inputs' data, in onnxruntime."""
        from torchpruner_core.running import run_operator

        for node, data in zip(self.out_data, run_operator(self), strict=True):
            node.data = data

    def rank(self, node: DataNode) -> tuple[str, int]:
        """Return ``('in', position)`` or ``('out', position)`` of ``node``; raises ``ValueError``."""
        for direction, nodes in (("in", self.in_data), ("out", self.out_data)):
            for position, candidate in enumerate(nodes):
                if candidate is node:
                    return direction, position
        raise ValueError(f"{node.name} is neither an input nor an output of {self.name}")

    def input(self, position: int) -> DataNode | None:
        """Return an input, or ``None`` where it is left out."""
        return self.in_data[position] if position < len(self.in_data) else None

    def output(self, position: int) -> DataNode | None:
        """Return an output, or ``None`` where it is left out."""
        names = list(self.proto.output)
        wanted = names[position] if position < len(names) else ""
        return next((node for node in self.out_data if node.value_name == wanted), None)

    def value(self, position: int) -> NDArray[Any] | None:
        """Return the contents of an input known without running the model, else ``None``."""
        node = self.input(position)
        return None if node is None else self.values.known(node.value_name)

    def integers(self, position: int, attribute: str | None = None) -> list[int] | None:
        """Return a list of integers given as an input, or as an attribute in older operator sets."""
        value = self.value(position)
        if value is not None:
            return [int(i) for i in value.ravel().tolist()]
        if attribute is not None and attribute in self.params:
            found = self.params[attribute]
            return [int(i) for i in found] if isinstance(found, Sequence) else [int(found)]
        return None

    def adapts(self, position: int) -> NDArray[np.bool_] | None:
        """Return which entries of a known input depend on the shapes of other tensors."""
        node = self.input(position)
        return None if node is None else self.values.adapts(node.value_name)

    def follows(self, position: int) -> NDArray[np.bool_] | None:
        """Return which entries of a known input are sizes that change with a cut by themselves."""
        node = self.input(position)
        return None if node is None else self.values.follows(node.value_name)

    @property
    def opset(self) -> int:
        """The version of the operator set that the model asks for in this operator's domain."""
        domain = self.proto.domain
        same = ("", "ai.onnx") if domain in ("", "ai.onnx") else (domain,)
        found = [entry.version for entry in self.values.opsets if entry.domain in same]
        return int(found[0]) if found else 1

    def opaque(
        self, ties: Ties, reason: str, nodes: Sequence[DataNode | None] | None = None
    ) -> None:
        """Declare every axis of ``nodes`` (all inputs and outputs) unable to be shortened."""
        for node in (*self.in_data, *self.out_data) if nodes is None else nodes:
            if node is not None:
                for dim in range(node.rank):
                    self.opaque_axis(ties, node, dim, reason)

    def opaque_axis(self, ties: Ties, node: DataNode, dim: int, reason: str) -> None:
        """Declare one axis unable to be shortened; axes of one slice have nothing to shorten."""
        if node.shape[dim] != 1:
            ties.opaque(node.axis(dim), f"{reason} ({self.name})")

    def _number_axes(self, ties: Ties) -> None:
        """Give the operator's own tensors axes in ``ties``, apart from the graph's numbers."""
        for node in dict.fromkeys(n for n in (*self.in_data, *self.out_data) if n is not None):
            node.first_axis = ties.new_axes([max(size, 1) for size in node.shape])

    def __repr__(self) -> str:
        ins = ", ".join("" if node is None else f"%{node.name}" for node in self.in_data)
        outs = ", ".join(f"%{node.name}" for node in self.out_data)
        return f"{outs} = {self.type}({ins})  # {self.name}"
