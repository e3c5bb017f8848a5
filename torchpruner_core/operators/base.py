"""What every operator offers, and how a family is written.

A family subclasses :class:`OperatorNode` and declares its ties in ``ties``; FLOPs follow from the
costs it declares there. An operator whose class only has the manual's ``analysis`` takes part
too: its ties are read off by asking ``analysis`` about each slice.
"""

from __future__ import annotations

from collections.abc import Sequence

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.errors import CutIndexError
from torchpruner_core.graph.mask import Mask
from torchpruner_core.graph.nodes import DataNode, OperatorRecord
from torchpruner_core.operators.alone import infer_outputs, run_operator
from torchpruner_core.operators.custom import Analysis, analyse_alone, ties_from_analysis

Products = tuple[tuple[int, ...], ...]
"""Input positions: a sum of products."""


class OperatorNode(OperatorRecord):
    """One operator, and the rules of its family; without any, all its axes stay.

    ``name``, ``params``, ``in_data`` and ``out_data`` are those of its record.
    """

    poles: tuple[int, ...] = ()
    """Inputs whose zeros make the output infinite or undefined: a divisor."""
    outputs_alike = False
    """Whether what :meth:`zero_products` says holds for every output, not for the first alone."""

    def __init__(self, node: OperatorRecord) -> None:
        """Take over ``node``'s identity: another operator node, or the importer's record of one."""
        super().__init__(
            node.name,
            node.type,
            node.module,
            node.params,
            node.in_data,
            node.out_data,
            node.position,
            node.values,
            node.proto,
        )

    def ties(self, ties: Ties) -> None:
        """Declare what goes together between this operator's tensors.

        A class that overrides only :meth:`analysis` is asked about every slice instead.
        """
        if type(self).analysis is not OperatorNode.analysis:
            ties_from_analysis(
                [node for node in (*self.in_data, *self.out_data) if node is not None],
                self.analysis,
                lambda node, dim: self.opaque_axis(
                    ties, node, dim, f"the rule registered for {self.type} refuses it"
                ),
                ties,
            )
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
        if described and any(not node.is_shaped for node in nodes):
            self.opaque(ties, "the rank of what it reads or computes is not known")
            return
        self.ties(ties)
        mentioned = ties.mentioned
        for node in nodes:
            for axis, size in enumerate(node.shape, node.first_axis):
                if size != 1 and axis not in mentioned:
                    ties.opaque(axis, f"it is a setting of the operator ({self.name})")

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
        self.rank(node)
        if not mask:
            raise CutIndexError(
                f"the mask on {node.name} removes nothing, so {self.name} has nothing to follow; set "
                "indices with Mask(node.size()).set_mask([0, 1], dim)",
                node=node.name,
                operator=self.name,
            )
        return analyse_alone([*self.in_data, *self.out_data], self.declare, node, mask)

    def fill_shape(self) -> None:
        """Set the outputs' shapes from the inputs' shapes and constants, by ONNX's own rules."""
        for node, (shape, dtype) in zip(self.out_data, infer_outputs(self), strict=True):
            node.shape, node.dtype = shape, dtype

    def fill_value(self) -> None:
        """Compute the outputs' data from the inputs' data, in onnxruntime."""
        for node, data in zip(self.out_data, run_operator(self), strict=True):
            node.data = data

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
