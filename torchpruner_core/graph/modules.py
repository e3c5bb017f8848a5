"""The modules of a graph: each sees its parameters, operators and the tensors at its border."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchpruner_core.analysis.closure import Granularity
from torchpruner_core.cut_result import CutRequest, CutResult
from torchpruner_core.graph.nodes import DataNode, HasSolved, OperatorRecord


class Module:
    """One ``nn.Module`` of the model, or one of its parameters or buffers, as the graph sees it.

    ``nn_object`` is the PyTorch object (``None`` for a file), ``sub_modules`` its children by
    attribute name, ``terminal_node`` the tensor of a parameter or buffer. ``operators`` are the
    operators that ran inside and depend on the input, ``in_data`` and ``out_data`` the tensors
    that enter and leave.
    """

    def __init__(self, name: str, graph: HasSolved, nn_object: Any = None) -> None:
        self.name = name
        self.graph = graph
        self.nn_object = nn_object
        self.sub_modules: dict[str, Module] = {}
        self.terminal_node: DataNode | None = None
        self.operators: list[OperatorRecord] = []
        self.in_data: list[DataNode] = []
        self.out_data: list[DataNode] = []

    def cut_analysis(
        self,
        attribute_name: str,
        index: Sequence[int],
        dim: int,
        *,
        granularity: Granularity = "auto",
        protect_io: bool = False,
    ) -> CutResult:
        """Return the smallest consistent cut that removes ``index`` along ``dim`` of an attribute.

        ``attribute_name`` is dotted from this module: ``'weight'``, ``'bn.weight'``; for the module
        of a parameter itself it is ``''``. Raises ``CutError`` and its subclasses.
        """
        name = f"{self.name}.{attribute_name}" if attribute_name else self.name
        return self.graph.solved.cut_analysis(
            name, index, dim, granularity=granularity, protect_io=protect_io
        )

    def cut_request(self, attribute_name: str, index: Sequence[int], dim: int) -> CutRequest:
        """Return the checked request of :meth:`cut_analysis`, for a joint cut of several."""
        name = f"{self.name}.{attribute_name}" if attribute_name else self.name
        return self.graph.solved.request(name, index, dim)

    def __repr__(self) -> str:
        kind = type(self.nn_object).__name__ if self.nn_object is not None else "Module"
        return f"{kind}({self.name!r})"


def fill_boundaries(module: Module) -> None:
    """Set ``in_data`` and ``out_data`` from the module's operators."""
    inside = set(map(id, module.operators))
    for operator in module.operators:
        for node in operator.in_data:
            outside = node is not None and (
                node.in_operator is None or id(node.in_operator) not in inside
            )
            if (
                node is not None
                and outside
                and not node.is_terminal()
                and node not in module.in_data
            ):
                module.in_data.append(node)
        for node in operator.out_data:
            leaves = node.is_output() or any(id(user) not in inside for user in node.out_operators)
            if leaves and node not in module.out_data:
                module.out_data.append(node)
