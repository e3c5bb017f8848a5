"""The data of a solved graph, and what can be looked up in it; the questions are functions around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from torchpruner_core.analysis.closure import Closure
from torchpruner_core.analysis.coupling import Coupling
from torchpruner_core.analysis.records import (
    TERMINAL_KINDS,
    ModuleInfo,
    NodeInfo,
    OperatorInfo,
)
from torchpruner_core.analysis.requests import checked_indices, integer, near_names
from torchpruner_core.analysis.sizes import SizeReaders
from torchpruner_core.cut_result import CutRequest, Indices, TensorSpec
from torchpruner_core.errors import (
    CutDimError,
    EmptyAxisError,
    UnknownModuleError,
    UnknownNodeError,
)


@dataclass(frozen=True)
class GraphData:
    """The nodes, operators, modules and coupling of one model; immutable."""

    nodes: dict[str, NodeInfo]
    operators: dict[str, OperatorInfo]
    modules: Mapping[str, ModuleInfo]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    coupling: Coupling
    metadata: dict[str, Any] = field(default_factory=dict)

    def flops(self) -> int:
        """Return FLOPs of one forward pass, as ``torch.utils.flop_counter`` counts them."""
        return self._totals[0]

    def macs(self) -> int:
        """Return multiply-accumulates of one forward pass: half of :meth:`flops`."""
        return self.flops() // 2

    def params(self) -> int:
        """Return the number of parameter elements; tied parameters count once."""
        return self._totals[1]

    @property
    def unread(self) -> tuple[str, ...]:
        """The model's parameters and buffers that this graph never reads.

        They are of a part that runs in training only (auxiliary heads, mask tokens, observers), or
        of no use at all. Empty where a file does not tell what else its model holds.
        """
        return tuple(self.metadata.get("unread", ()))

    @cached_property
    def _totals(self) -> tuple[int, int]:
        params = sum(
            prod(node.shape)
            for node in self.nodes.values()
            if node.kind == "parameter" and node.alias_of is None
        )
        return sum(operator.flops for operator in self.operators.values()), params

    def request(self, node: str, index: Iterable[int], dim: int) -> CutRequest:
        """Return a checked request: the node exists, ``dim`` counts from zero, indices are sorted.

        Raises ``UnknownNodeError``, ``CutDimError``, ``CutIndexError`` or ``EmptyAxisError``.
        """
        info = self.node(node)
        rank = len(info.shape)
        number = integer(dim)
        if number is None or not -rank <= number < rank:
            if rank == 0:
                raise CutDimError(
                    f"{node} is a scalar: it has no axis to remove slices from; cut a tensor that "
                    "has one",
                    node=node,
                    shape=[],
                    received=repr(dim),
                )
            raise CutDimError(
                f"{node} has the shape {list(info.shape)}: dim must be from {-rank} to {rank - 1}, "
                f"not {dim!r}",
                node=node,
                shape=list(info.shape),
                received=repr(dim),
            )
        axis = number % rank
        size = info.shape[axis]
        checked = checked_indices(index, node, axis, size)
        if len(checked) == size:
            raise EmptyAxisError(
                f"all {size} slices of axis {axis} of {node} were asked for; leave at least one",
                node=node,
                dim=axis,
                size=size,
            )
        return CutRequest(node, axis, tuple(checked.tolist()))

    def node(self, name: str) -> NodeInfo:
        """Return the node called ``name``; raises ``UnknownNodeError`` with near names."""
        try:
            return self.nodes[name]
        except (KeyError, TypeError):
            if name in self.unread:
                raise UnknownNodeError(
                    f"{name} has no node, since the forward that was analysed never read it; a graph that "
                    "was built with training=True, or with other arguments, may have it",
                    node=str(name),
                ) from None
            near = near_names(name, self.nodes)
            raise UnknownNodeError(
                f"there is no node called {name!r}{near}; list the nodes for the names",
                node=str(name),
            ) from None

    def module(self, name: str) -> ModuleInfo:
        """Return the module called ``name``; raises ``UnknownModuleError`` with near names."""
        try:
            return self.modules[name]
        except (KeyError, TypeError):
            near = near_names(name, self.modules)
            raise UnknownModuleError(
                f"there is no module called {name!r}{near}; list the modules for the names",
                module=str(name),
            ) from None

    @cached_property
    def first_axis(self) -> dict[str, int]:
        """The position of each node's axis 0 in ``coupling.axis_class``."""
        found, position = {}, 0
        for name, node in self.nodes.items():
            found[name] = position
            position += len(node.shape)
        return found

    @cached_property
    def closure(self) -> Closure:
        parameters = [
            self.classes_of(name)
            for name, node in self.nodes.items()
            if node.kind == "parameter" and node.alias_of is None
        ]
        return Closure(self.coupling, parameters)

    def classes_of(self, name: str) -> tuple[int, ...]:
        """Return the class of each axis of a node."""
        first = self.first_axis[name]
        rank = len(self.nodes[name].shape)
        return tuple(self.coupling.axis_class[first : first + rank].tolist())

    @cached_property
    def axis_owner(self) -> list[tuple[str, int, int, bool]]:
        """For each axis: its node's name, its dim, the node's rank, whether it is a terminal."""
        return [
            (name, dim, len(node.shape), node.kind in TERMINAL_KINDS)
            for name, node in self.nodes.items()
            for dim in range(len(node.shape))
        ]

    @cached_property
    def size_readers(self) -> SizeReaders:
        """Which modules may read the size of a tensor."""
        return SizeReaders(self.nodes, self.operators)

    @cached_property
    def operator_names(self) -> list[str]:
        """The operators' names by position."""
        return list(self.operators)

    def params_change(self, gone: Mapping[int, Indices]) -> int:
        """Return how many parameter elements go with the indices that go from each class."""
        left = {owner: int(self.coupling.class_length[owner]) - len(gone[owner]) for owner in gone}
        return self.closure.params_without(left)

    def flops_change(self, gone: dict[int, Indices]) -> int:
        coupling = self.coupling
        change = 0
        for position in {p for c in gone for p in coupling.costs_of_class.get(c, ())}:
            _, factor, classes = coupling.costs[position]
            before = after = factor
            for owner in classes:
                size = int(coupling.class_length[owner])
                before *= size
                after *= size - len(gone.get(owner, ()))
            change += after - before
        return change

    def spec(self, name: str) -> TensorSpec:
        """Return the name, shape and dtype of a node."""
        node = self.nodes[name]
        fixed = self.metadata.get("values", {}).get(name)
        return TensorSpec(name, node.shape, node.dtype, None if fixed is None else tuple(fixed))
