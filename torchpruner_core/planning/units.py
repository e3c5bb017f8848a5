"""Units: what can go on its own and leaves everything else whole.

A component of the coupling goes whole. Where an axis is a product of several (heads and head
dimensions, groups and channels a group), one of its factors is chosen, and a unit is everything that
goes with one index of that factor: a head with its slices of q, k, v and the output, a key/value head
with its query heads, a group of a grouped convolution. Under such a choice a view is a plain tie, so the
units are connected components once more, found for all slices at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.coupling import ClassView
from torchpruner_core.analysis.graph_data import GraphData
from torchpruner_core.analysis.records import TERMINAL_KINDS

Int = NDArray[np.int64]

INPUT = "it reaches the model's input {}"
OUTPUT = "it reaches the model's output {}"
FACTOR = (
    "it is a factor of an axis that goes by its other one (a head dimension, a channel of every "
    "group); granularity='inner' takes it instead"
)
UNREAD = "nothing that the graph computes has this axis, so what its slices are worth is not known"
ATTEMPTS = 4
"""How often a factor that turned out fixed is exchanged for another one of its view."""


@dataclass(frozen=True, eq=False)
class UnitGroup:
    """Units that remove the same number of slices of the same axes.

    ``units`` are their numbers; one unit removes ``slices[k]`` slices of the class ``classes[k]``.
    ``members`` are the axes of parameters and buffers reached; ``node`` and ``dim`` the one that stands for
    the group, of which a unit is ``step`` slices. ``reason`` says why no unit can go; ``None`` otherwise.
    """

    id: int
    units: Int
    classes: tuple[int, ...]
    slices: tuple[int, ...]
    members: tuple[tuple[str, int], ...]
    node: str
    dim: int
    step: int
    physical: tuple[int, ...]
    """The slices a unit removes of each class whose width a kernel sees: no mere count of heads."""
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class Units:
    """The units of one graph.

    ``of_slice`` gives the unit of each slice of the coupling's classes, shape ``(slices,)``; ``share`` one
    over the number of slices of the same class in the same unit. ``fixed`` lists the axes of parameters and
    buffers that no rule can shorten, as ``(node, dim, reason)``.
    """

    graph: GraphData
    of_slice: Int
    count: int
    groups: tuple[UnitGroup, ...]
    fixed: tuple[tuple[str, int, str], ...]

    @cached_property
    def owner(self) -> Int:
        """The class of each slice."""
        return _owners(self.graph)

    @cached_property
    def share(self) -> NDArray[np.float64]:
        key = self.owner * np.int64(self.count) + self.of_slice
        _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
        share: NDArray[np.float64] = 1.0 / counts[inverse]
        return share

    def of_axis(self, node: str, dim: int) -> tuple[Int, NDArray[np.float64]]:
        """Return the unit and the share of each slice of an axis, shapes ``(size,)``."""
        coupling = self.graph.coupling
        owner = self.graph.classes_of(node)[dim]
        start, length = int(coupling.class_start[owner]), int(coupling.class_length[owner])
        return self.of_slice[start : start + length], self.share[start : start + length]


def find_units(graph: GraphData, inner: Callable[[ClassView], bool]) -> Units:
    """Return the units of ``graph``; ``inner`` says at which views the last factor is taken."""
    banned: set[tuple[int, int]] = set()
    for _ in range(ATTEMPTS):
        chosen, reserved = _choose_factors(graph, inner, banned)
        units = _units(graph, chosen, reserved)
        more = _fixed_choices(graph, units, chosen) - banned
        if not more:
            break
        banned |= more
    return units


def with_pairs(units: Units, left: Int, right: Int) -> Units:
    """Return the units in which unit ``left[k]`` goes together with unit ``right[k]``."""
    label = _connected(units.count, left, right)
    return _numbered(units.graph, label[units.of_slice], _reserved_reasons(units))


def _reserved_reasons(units: Units) -> dict[int, str]:
    reserved = {}
    for group in units.groups:
        if group.reason == FACTOR:
            reserved.update(dict.fromkeys(group.classes, FACTOR))
    return reserved


def _choose_factors(
    graph: GraphData, inner: Callable[[ClassView], bool], banned: set[tuple[int, int]]
) -> tuple[list[tuple[int, ...]], dict[int, str]]:
    """Return the positions of each view's chosen factors, and the classes that must stay whole.

    A channel shuffle has one view in each order: the longer factor is chosen, as its units are finer.
    """
    coupling = graph.coupling
    wanted: set[int] = set()
    for position, view in enumerate(coupling.views):
        order = range(len(view.factors))
        for k in reversed(order) if inner(view) else order:
            if (position, k) not in banned:
                wanted.add(view.factors[k])
                break
    primary: dict[int, bool] = {}
    chosen: list[tuple[int, ...]] = []
    for position, view in enumerate(coupling.views):
        open_ = [f for k, f in enumerate(view.factors) if (position, k) not in banned]
        taken = [f for f in view.factors if primary.get(f)]
        if not taken:
            free = [f for f in open_ if f not in primary]
            free = [f for f in free if f in wanted] or free
            taken = [max(free, key=lambda f: int(coupling.class_length[f]))] if free else []
        for factor in view.factors:
            primary.setdefault(factor, factor in taken)
        chosen.append(tuple(k for k, f in enumerate(view.factors) if f in taken))
    reserved = {owner: FACTOR for owner, is_primary in primary.items() if not is_primary}
    for view, positions in zip(coupling.views, chosen, strict=True):
        if not positions:
            reserved[view.whole] = FACTOR
    return chosen, reserved


def _units(graph: GraphData, chosen: Sequence[tuple[int, ...]], reserved: dict[int, str]) -> Units:
    coupling = graph.coupling
    left, right = [], []
    for view, positions in zip(coupling.views, chosen, strict=True):
        whole = coupling.components_of(view.whole)
        shape = [int(coupling.class_length[f]) for f in view.factors]
        for k in positions:
            along = np.arange(shape[k]).reshape([-1 if j == k else 1 for j in range(len(shape))])
            index = np.broadcast_to(along, shape).ravel()
            left.append(whole)
            right.append(coupling.components_of(view.factors[k])[index])
    label = np.arange(len(coupling.component_reason), dtype=np.int64)
    if left:
        label = _connected(len(label), np.concatenate(left), np.concatenate(right))
    return _numbered(graph, label[coupling.component], reserved)


def _fixed_choices(
    graph: GraphData, units: Units, chosen: Sequence[tuple[int, ...]]
) -> set[tuple[int, int]]:
    """Return the chosen factors whose every unit is fixed, where their view has another factor."""
    fixed = np.ones(units.count, dtype=np.bool_)
    for group in units.groups:
        if group.reason is None and len(group.units) > 1:
            fixed[group.units] = False
    coupling = graph.coupling
    found = set()
    for position, (view, positions) in enumerate(zip(coupling.views, chosen, strict=True)):
        for k in positions:
            start = int(coupling.class_start[view.factors[k]])
            length = int(coupling.class_length[view.factors[k]])
            if fixed[units.of_slice[start : start + length]].all():
                found.add((position, k))
    return found


def _numbered(graph: GraphData, label: Int, reserved: dict[int, str]) -> Units:
    """Number the units by their first slice and group those that remove the same."""
    coupling = graph.coupling
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    of_slice: Int = rank[inverse]
    count = len(first)
    owner = _owners(graph)
    reason = np.full(count, -1, dtype=np.int64)
    np.maximum.at(reason, of_slice, coupling.component_reason[coupling.component].astype(np.int64))
    code = np.random.default_rng(0).integers(1, 2**62, len(coupling.class_length), dtype=np.uint64)
    signature = np.zeros(count, dtype=np.uint64)
    np.add.at(signature, of_slice, code[owner])
    signature ^= (reason + 1).astype(np.uint64) << np.uint64(40)
    order = np.argsort(of_slice, kind="stable")
    starts = np.searchsorted(of_slice[order], np.arange(count + 1))
    _, leads, kind = np.unique(signature, return_index=True, return_inverse=True)
    members_of = np.argsort(kind, kind="stable")
    counts = np.bincount(kind, minlength=len(leads))
    ends = np.cumsum(counts)
    groups: list[UnitGroup] = []
    describe = _Describer(graph, reserved)
    for number in np.argsort(leads).tolist():
        lead = int(leads[number])
        slices = order[starts[lead] : starts[lead + 1]]
        classes, per_unit = np.unique(owner[slices], return_counts=True)
        why = coupling.reasons[int(reason[lead])] if reason[lead] >= 0 else None
        units = members_of[ends[number] - counts[number] : ends[number]]
        group = describe(len(groups), units, classes.tolist(), per_unit.tolist(), why)
        if group is not None:
            groups.append(group)
    return Units(graph, of_slice, count, tuple(groups), tuple(describe.fixed()))


class _Describer:
    """Gives a group its names, or ``None`` where it reaches no parameter and no buffer."""

    def __init__(self, graph: GraphData, reserved: dict[int, str]) -> None:
        self.coupling = graph.coupling
        self.length = graph.coupling.class_length
        self.frozen = graph.coupling.class_frozen
        self.reserved = reserved
        self.factors = {f for view in graph.coupling.views for f in view.factors}
        self.stored: dict[int, list[tuple[str, int]]] = {}
        for name, node in graph.nodes.items():
            if node.kind in ("parameter", "buffer"):
                for dim, owner in enumerate(graph.classes_of(name)):
                    self.stored.setdefault(owner, []).append((name, dim))
        self.order = {name: k for k, name in enumerate(graph.nodes)}
        self.boundary: dict[int, str] = {}
        for names, text in ((graph.inputs, INPUT), (graph.outputs, OUTPUT)):
            for name in names:
                for owner in graph.classes_of(name):
                    self.boundary.setdefault(owner, text.format(name))
        self.computed = {
            owner
            for name, node in graph.nodes.items()
            if node.kind not in TERMINAL_KINDS
            for owner in graph.classes_of(name)
        }
        self.matrices = {name for name, node in graph.nodes.items() if len(node.shape) > 1}

    def __call__(
        self, id_: int, units: Int, classes: list[int], slices: list[int], reason: str | None
    ) -> UnitGroup | None:
        held = [(c, n) for c, n in zip(classes, slices, strict=True) if c in self.stored]
        held = [(c, n) for c, n in held if not self.frozen[c]]
        if not held or all(self.length[c] <= 1 for c in classes):
            return None
        physical = [(c, n) for c, n in held if c not in self.factors] or held
        step = max(n for _, n in physical)
        axes = [axis for c, n in physical if n == step for axis in self.stored[c]]
        node, dim = min(axes, key=lambda a: (a[0] not in self.matrices, self.order[a[0]], a[1]))
        members = sorted(
            (axis for c, _ in held for axis in self.stored[c]),
            key=lambda a: (self.order[a[0]], a[1]),
        )
        if all(c not in self.computed for c in classes):
            reason = reason or UNREAD
        for found in (self.boundary, self.reserved):
            reason = reason or next((found[c] for c in classes if c in found), None)
        return UnitGroup(
            id_,
            units,
            tuple(classes),
            tuple(slices),
            tuple(members),
            node,
            dim,
            step,
            tuple(n for _, n in physical),
            reason,
        )

    def fixed(self) -> list[tuple[str, int, str]]:
        """Return the axes longer than one whose class is frozen, with the reason."""
        found = []
        for owner, axes in self.stored.items():
            if self.frozen[owner] and self.length[owner] > 1:
                component = int(self.coupling.components_of(owner)[0])
                reason = self.coupling.reasons[int(self.coupling.component_reason[component])]
                found += [(node, dim, reason) for node, dim in axes]
        return sorted(found, key=lambda axis: (self.order[axis[0]], axis[1]))


def _owners(graph: GraphData) -> Int:
    coupling = graph.coupling
    width = np.where(coupling.class_frozen, 1, coupling.class_length)
    return np.repeat(np.arange(len(width), dtype=np.int64), width)


def _connected(count: int, left: Int, right: Int) -> Int:
    """Return the smallest number in the connected component of each of ``count`` points."""
    label = np.arange(count, dtype=np.int64)
    while True:
        a, b = label[left], label[right]
        if np.array_equal(a, b):
            return label
        np.minimum.at(label, np.maximum(a, b), np.minimum(a, b))
        while True:
            shorter = label[label]
            if np.array_equal(shorter, label):
                break
            label = shorter
