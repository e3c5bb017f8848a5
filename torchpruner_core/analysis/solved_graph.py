"""A graph, solved: what a process needs to answer questions about a model, in numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from torchpruner_core.analysis.closure import GRANULARITIES, Closure, Granularity, Removal
from torchpruner_core.analysis.coupling import ClassSelection, Coupling
from torchpruner_core.analysis.requests import checked_indices, integer, near_names, read_requests
from torchpruner_core.cut_result import (
    AxisCuts,
    Choice,
    CutRequest,
    CutResult,
    Indices,
    OperatorChange,
    TensorSpec,
)
from torchpruner_core.errors import (
    CutDimError,
    CutError,
    CutIndexError,
    EmptyAxisError,
    OpaqueAxisError,
    ProtectedIOError,
    UnknownModuleError,
    UnknownNodeError,
)

if TYPE_CHECKING:
    from torchpruner_core.analysis.sizes import SizeReaders

NodeKind = Literal["parameter", "buffer", "constant", "input", "output", "intermediate"]

TERMINAL_KINDS = frozenset({"parameter", "buffer", "constant"})


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One tensor of the graph.

    ``producer`` and ``consumers`` are operator names; ``alias_of`` names the node that shares
    this one's storage (tied weights).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: NodeKind
    module: str
    producer: str | None = None
    consumers: tuple[str, ...] = ()
    alias_of: str | None = None


@dataclass(frozen=True, slots=True)
class OperatorInfo:
    """One operator: ``inputs`` and ``outputs`` are node names; ``flops`` counts two a MAC."""

    name: str
    type: str
    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    flops: int = 0

    @property
    def macs(self) -> int:
        return self.flops // 2


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """One module, or one parameter or buffer, by its dotted name from ``self``.

    ``params`` and ``flops`` include everything below; ``operators`` are the module's own.
    """

    name: str
    type: str
    parent: str | None
    children: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    params: int = 0
    flops: int = 0

    @property
    def macs(self) -> int:
        return self.flops // 2


@dataclass(frozen=True)
class SolvedGraph:
    """The nodes, operators, modules and coupling of one model.

    Immutable; safe to share between threads. Built by ``torchpruner_core.solve_onnx``.
    """

    nodes: dict[str, NodeInfo]
    operators: dict[str, OperatorInfo]
    modules: dict[str, ModuleInfo]
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

    @cached_property
    def _totals(self) -> tuple[int, int]:
        params = sum(
            prod(node.shape)
            for node in self.nodes.values()
            if node.kind == "parameter" and node.alias_of is None
        )
        return sum(operator.flops for operator in self.operators.values()), params

    def cut_analysis(
        self,
        node: str,
        index: Sequence[int],
        dim: int,
        *,
        granularity: Granularity = "auto",
        protect_io: bool = False,
    ) -> CutResult:
        """Return the smallest consistent cut that removes ``index`` along ``dim`` of ``node``.

        Negative ``dim`` counts from the end. ``granularity`` decides where an axis splits into
        several prunable ones (heads and head dimensions, groups and channels a group).

        Raises :class:`~torchpruner_core.errors.CutError` and its subclasses; nothing is changed.
        """
        request = self.request(node, index, dim)
        return self.cut_analysis_many([request], granularity=granularity, protect_io=protect_io)

    def cut_analysis_many(
        self,
        requests: Iterable[CutRequest],
        *,
        granularity: Granularity = "auto",
        protect_io: bool = False,
    ) -> CutResult:
        """Return the smallest consistent cut that contains every request; see ``cut_analysis``."""
        asked = tuple(self.request(r.node, r.index, r.dim) for r in read_requests(requests))
        if not asked:
            raise CutIndexError("no cut was asked for; give at least one node, dim and index")
        if granularity not in GRANULARITIES:
            raise CutError(
                f"granularity is one of {', '.join(GRANULARITIES)}, not {granularity!r}",
                received=granularity,
            )
        removal = self._close(asked, granularity)
        result = self._result(asked, removal)
        if protect_io and (result.touches_inputs or result.touches_outputs):
            names = ", ".join((*result.touches_inputs, *result.touches_outputs))
            raise ProtectedIOError(
                f"the cut reaches the model's inputs or outputs ({names}), and protect_io is set",
                touches_inputs=list(result.touches_inputs),
                touches_outputs=list(result.touches_outputs),
            )
        return result

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

    def groups(self) -> list[Any]:
        """Return every group of the model; see :mod:`torchpruner_core.analysis.groups`."""
        from torchpruner_core.analysis.groups import groups

        return groups(self)

    def derive(self, result: CutResult) -> SolvedGraph:
        """Return the graph after ``result`` was cut: sliced, not rebuilt.

        Raises ``CutError`` where ``result`` was not made for this graph or is not consistent.
        """
        from torchpruner_core.analysis.derive import derive

        return derive(self, result)

    def to_bytes(self) -> bytes:
        """Return the graph as bytes for a cache or a file."""
        from torchpruner_core.analysis.storage import dump

        return dump(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> SolvedGraph:
        """Read :meth:`to_bytes`; raises ``InvalidModelError`` for anything else."""
        from torchpruner_core.analysis.storage import load

        return load(data)

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
    def _size_readers(self) -> SizeReaders:
        from torchpruner_core.analysis.sizes import SizeReaders

        return SizeReaders(self.nodes, self.operators)

    @cached_property
    def _operator_names(self) -> list[str]:
        return list(self.operators)

    def _close(self, asked: Sequence[CutRequest], granularity: Granularity) -> Removal:
        parts = []
        for request in asked:
            owner = self.classes_of(request.node)[request.dim]
            components = self.coupling.components_of(owner)
            if self.coupling.class_frozen[owner]:
                reason = self.coupling.reasons[int(self.coupling.component_reason[components[0]])]
                raise OpaqueAxisError(
                    f"axis {request.dim} of {request.node} cannot be pruned: {reason}",
                    node=request.node,
                    dim=request.dim,
                    reason=reason,
                )
            parts.append(components[np.array(request.index, dtype=np.int64)])
        try:
            return self.closure.close(np.unique(np.concatenate(parts)), granularity)
        except CutError as error:
            self._name_fields(error, asked)
            raise

    def _name_fields(self, error: CutError, asked: Sequence[CutRequest]) -> None:
        """Put names where the closure, which knows numbers only, left numbers."""
        operator = error.fields.get("operator")
        if isinstance(operator, int):
            error.fields["operator"] = self._operator_names[operator]
        owner = error.fields.pop("axis_class", None)
        if owner is not None:
            starts, axes = self.coupling.axes_of_class
            members = [self.axis_owner[a] for a in axes[starts[owner] : starts[owner + 1]]]
            if members:
                name, dim = next(((n, d) for n, d, _, end in members if end), members[0][:2])
                error.detail = f"{error.detail} (axis {dim} of {name})"
                error.args = (error.detail,)
                error.fields.update(node=name, dim=dim)
        error.fields.setdefault("requested", [request.to_dict() for request in asked])

    def _result(self, asked: Sequence[CutRequest], removal: Removal) -> CutResult:
        coupling, closure = self.coupling, self.closure
        gone: dict[int, Indices] = {c: closure.indices(removal, c) for c in removal.classes}
        for indices in gone.values():
            indices.flags.writeable = False  # one array serves every node of the class
        terminal, iner = self._cuts(gone)
        flops_before = self.flops()
        flops_after = flops_before + self.flops_change(gone)
        return CutResult(
            terminal=terminal,
            iner=iner,
            operator=self._operator_changes(gone),
            requested=tuple(asked),
            added=self._added(asked, terminal, iner),
            choices=tuple(self._choices(removal)),
            renormalises=tuple(
                dict.fromkeys(
                    self._operator_names[op] for op, c in coupling.renormalised if c in gone
                )
            ),
            touches_inputs=tuple(name for name in self.inputs if name in iner),
            touches_outputs=tuple(
                name for name in self.outputs if name in iner or name in terminal
            ),
            literals=tuple(name for name in terminal if self.nodes[name].kind == "constant"),
            reads_sizes=self._size_readers.of(iner),
            params_before=self.params(),
            params_removed=closure.params_removed(removal),
            flops_before=flops_before,
            flops_after=flops_after,
            macs_before=flops_before // 2,
            macs_after=flops_after // 2,
            inputs=tuple(self.spec(name) for name in self.inputs),
            outputs=tuple(self._cut_spec(name, iner.get(name)) for name in self.outputs),
            shapes={name: self.nodes[name].shape for name in (*terminal, *iner)},
        )

    def _cuts(self, gone: dict[int, Indices]) -> tuple[dict[str, AxisCuts], dict[str, AxisCuts]]:
        starts, axes_of = self.coupling.axes_of_class
        axes: list[tuple[int, Indices]] = []
        for owner, indices in gone.items():
            if owner + 1 < len(starts):
                axes += [(a, indices) for a in axes_of[starts[owner] : starts[owner + 1]].tolist()]
        axes.sort(key=_first)
        terminal: dict[str, AxisCuts] = {}
        iner: dict[str, AxisCuts] = {}
        owners = self.axis_owner
        for axis, indices in axes:
            name, dim, rank, is_terminal = owners[axis]
            cuts = terminal if is_terminal else iner
            if name not in cuts:
                cuts[name] = [None] * rank
            cuts[name][dim] = indices
        return terminal, iner

    def _operator_changes(self, gone: dict[int, Indices]) -> dict[str, OperatorChange]:
        changes: dict[str, OperatorChange] = {}
        of_class = self.coupling.changes_of_class
        for owner, indices in gone.items():
            for change in of_class.get(owner, ()):
                low, high = np.searchsorted(indices, (change.low, change.high))
                amount = change.sign * int(high - low)
                if not amount:
                    continue
                entry = changes.setdefault(self._operator_names[change.operator], {})
                if change.position is None:
                    entry[change.key] = amount
                else:
                    values = entry.setdefault(change.key, [0] * change.length)
                    if isinstance(values, list):
                        values[change.position] += amount
        for selection in self.coupling.selections:
            if selection.owner in gone:
                shift = _renumbering(selection, gone)
                if shift is not None:
                    changes.setdefault(self._operator_names[selection.operator], {})[
                        selection.key
                    ] = shift
        return changes

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

    def _added(
        self, asked: Sequence[CutRequest], terminal: dict[str, AxisCuts], iner: dict[str, AxisCuts]
    ) -> dict[str, AxisCuts]:
        wanted: dict[tuple[str, int], set[int]] = {}
        for request in asked:
            wanted.setdefault((request.node, request.dim), set()).update(request.index)
        added: dict[str, AxisCuts] = {}
        for (name, dim), index in wanted.items():
            cuts = terminal.get(name) or iner.get(name) or []
            full = cuts[dim] if cuts else None
            if full is None or len(full) == len(index):
                continue
            extra = np.setdiff1d(full, np.array(sorted(index), dtype=np.int64))
            added.setdefault(name, [None] * len(cuts))[dim] = extra
        return added

    def _choices(self, removal: Removal) -> Iterable[Choice]:
        for decision in removal.decisions:
            factors = decision.view.factors
            name = _factor_name(len(factors))
            yield Choice(
                operator=self._operator_names[decision.view.operator],
                factors=tuple(int(self.coupling.class_length[f]) for f in factors),
                taken=name(decision.taken),
                rejected=name(decision.rejected),
                taken_cost=decision.taken_cost,
                other_cost=decision.other_cost,
            )

    def spec(self, name: str) -> TensorSpec:
        """Return the name, shape and dtype of a node."""
        node = self.nodes[name]
        return TensorSpec(name, node.shape, node.dtype)

    def _cut_spec(self, name: str, cuts: AxisCuts | None) -> TensorSpec:
        spec = self.spec(name)
        if cuts is None:
            return spec
        sizes = [n - (0 if c is None else len(c)) for n, c in zip(spec.shape, cuts, strict=True)]
        return replace(spec, shape=tuple(sizes))


def _first(pair: tuple[int, Indices]) -> int:
    return pair[0]


def _factor_name(count: int) -> Callable[[int], str]:
    def name(position: int) -> str:
        if position == 0:
            return "outer"
        return "inner" if position == count - 1 else f"factor {position}"

    return name


def _renumbering(selection: ClassSelection, gone: dict[int, Indices]) -> list[int] | None:
    """Return what to subtract from each kept entry of a constant of indices, flattened."""
    values = selection.values
    for axis, owner in enumerate(selection.along):
        if owner in gone:
            values = np.delete(values, gone[owner], axis=axis)
    shift = np.searchsorted(gone[selection.owner], values.ravel())
    return [int(s) for s in shift.tolist()] if shift.any() else None
