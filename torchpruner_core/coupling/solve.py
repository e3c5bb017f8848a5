"""Solve a graph's ties once: connected components of slices, and the views that stay choices.

Three steps, each on smaller data than the one before:

1. Axes tied whole (``same``) collapse into *classes*; most ties of a network are of this kind.
2. Classes that no rule can shorten are frozen, and freezing spreads through views: a view whose
   factors are all frozen freezes its whole, and a view with one free factor is a plain tie.
3. The slices of the free classes, tied by runs, index pairs and reduced views, fall into
   connected components: the groups of the model.

Step 2 is repeated where step 3 froze a further class; a network needs one or two rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.coupling import (
    ClassChange,
    ClassSelection,
    ClassView,
    Coupling,
)
from torchpruner_core.coupling.ties import Ties
from torchpruner_core.errors import GraphTooLargeError

Int = NDArray[np.int64]

ALL_OF_AN_AXIS = "every slice of another axis would go with it"
IN_VIEW = "is one of the axes that a Reshape-like split combines, and the others cannot be pruned"


def solve(
    ties: Ties, input_axes: Iterable[int], visible_axes: int, max_slices: int | None = None
) -> Coupling:
    """Return the solved coupling of everything in ``ties``.

    ``input_axes`` are the axes of graph inputs; the first ``visible_axes`` axes are those of
    tensors, in the order of the graph's nodes. Raises ``GraphTooLargeError``, before anything of that
    size is made, where there are more than ``max_slices`` slices.
    """
    solver = _Solver(ties, input_axes)
    if max_slices is not None:
        solver.check_size(max_slices)
    return solver.solve(visible_axes)


TIES_PER_SLICE = 16
"""A slice is tied to a few others in real models: less than two on average."""


@dataclass(slots=True)
class _Reduced:
    """A view between classes, with frozen factors folded away."""

    whole: int
    factors: tuple[int, ...]
    operator: int


class _Solver:
    def __init__(self, ties: Ties, input_axes: Iterable[int]) -> None:
        self.ties = ties
        pairs = np.array(ties.same_pairs, dtype=np.int64).reshape(-1, 2)
        self.class_of = _components(len(ties.lengths), pairs[:, 0], pairs[:, 1])
        self._class_of: list[int] = self.class_of.tolist()
        count = int(self.class_of.max()) + 1 if len(self.class_of) else 0
        self.length = np.zeros(count, dtype=np.int64)
        self.length[self.class_of] = ties.lengths
        self.frozen: dict[int, str] = {}
        for axis, reason in ties.opaque_axes.items():
            self.frozen.setdefault(self._class_of[axis], reason)
        self.soft = {self._class_of[axis] for axis in input_axes}
        copied = {self._class_of[axis] for axis in ties.copies}
        if copied:
            self.soft |= copied - {self._class_of[axis] for axis in ties.sources}
        seen: dict[tuple[int, tuple[int, ...]], int] = {}
        for view in ties.views:
            key = (self.of(view.whole), tuple(map(self.of, view.factors)))
            seen.setdefault(key, view.operator)
        self.views = [_Reduced(whole, factors, op) for (whole, factors), op in seen.items()]
        self.length_all: Int
        """The lengths of the classes, and of the products that are left of views."""
        self.frozen_slices: list[tuple[int, Int, str]] = [
            (self.of(axis), index, reason) for axis, index, reason in ties.opaque_slices
        ]
        self.run_table = self._run_table()

    def of(self, axis: int) -> int:
        return self._class_of[axis]

    def check_size(self, limit: int) -> None:
        """Raise where there are more slices, or ties between them, than ``limit`` allows."""
        slices = sum(int(n) for k, n in enumerate(self.length) if k not in self.frozen)
        ties = sum(run[4] for run in self.ties.runs)
        ties += sum(len(pair[1]) for pair in self.ties.index_pairs)
        if slices > limit or ties > TIES_PER_SLICE * limit:
            raise GraphTooLargeError(
                f"the model's axes have {slices} slices in all, tied in {ties} places; {limit} slices "
                "are allowed. Give the inputs smaller shapes (a batch of one, short sequences), or "
                "allow more",
                slices=slices,
                ties=ties,
                limit=limit,
            )

    def solve(self, visible_axes: int) -> Coupling:
        while True:
            self._freeze_views()
            plain, choices = self._reduce_views()
            starts, component, reason_of = self._slices(plain)
            newly = self._frozen_by_slices(starts, component, reason_of)
            if not newly:
                break
            self.frozen.update(newly)
        return self._pack(visible_axes, choices, starts, component, reason_of)

    def _freeze_views(self) -> None:
        """Spread frozen and soft classes through views until nothing changes."""
        changed = True
        while changed:
            changed = False
            for view in self.views:
                if view.whole in self.frozen:
                    for factor in view.factors:
                        if factor not in self.frozen:
                            self.frozen[factor] = self.frozen[view.whole]
                            changed = True
                    continue
                if view.whole in self.soft:
                    before = len(self.soft)
                    self.soft.update(view.factors)
                    changed |= len(self.soft) != before
                free = [f for f in view.factors if f not in self.frozen and f not in self.soft]
                if view.whole in self.soft or not free:
                    free = [f for f in view.factors if f not in self.frozen]
                if not free:
                    self.frozen[view.whole] = self.frozen[view.factors[0]]
                    changed = True
                for factor in view.factors:
                    if factor not in free and factor not in self.frozen:
                        self.frozen[factor] = IN_VIEW
                        changed = True

    def _reduce_views(self) -> tuple[list[tuple[int, Int, int]], list[_Reduced]]:
        """Return plain ties ``(whole, index of each slice, class)`` and the views left.

        A frozen factor leaves its view: every slice along it is tied to one slice of the rest.
        """
        lengths = self.length.tolist()
        plain: list[tuple[int, Int, int]] = []
        choices: list[_Reduced] = []
        made: dict[tuple[int, tuple[int, ...]], int] = {}
        for view in self.views:
            if view.whole in self.frozen:
                continue
            shape = tuple(int(self.length[f]) for f in view.factors)
            free = [k for k, f in enumerate(view.factors) if f not in self.frozen]
            if len(free) == len(view.factors):
                choices.append(view)
                continue
            coordinates = np.unravel_index(np.arange(int(self.length[view.whole])), shape)
            kept_shape = tuple(shape[k] for k in free)
            index = np.ravel_multi_index(tuple(coordinates[k] for k in free), kept_shape)
            if len(free) == 1:
                plain.append((view.whole, index, view.factors[free[0]]))
                continue
            factors = tuple(view.factors[k] for k in free)
            key = (view.whole, factors)
            if key not in made:
                made[key] = len(lengths)
                lengths.append(prod(kept_shape))
                choices.append(_Reduced(made[key], factors, view.operator))
            plain.append((view.whole, index, made[key]))
        self.length_all = np.array(lengths, dtype=np.int64)
        return plain, choices

    def _is_frozen(self) -> NDArray[np.bool_]:
        found = np.zeros(len(self.length_all), dtype=np.bool_)
        found[list(self.frozen)] = True
        return found

    def _run_table(self) -> Int:
        rows = [(self.of(a), a0, self.of(b), b0, n) for a, a0, b, b0, n in self.ties.runs]
        return np.array(rows, dtype=np.int64).reshape(-1, 5)

    def _slices(self, plain: Sequence[tuple[int, Int, int]]) -> tuple[Int, Int, dict[int, str]]:
        """Return each class's first slice, each slice's component, and frozen components.

        A frozen class has one slice for all its indices.
        """
        is_frozen = self._is_frozen()
        width = np.where(is_frozen, 1, self.length_all)
        starts = np.zeros(len(width), dtype=np.int64)
        np.cumsum(width[:-1], out=starts[1:])
        left: list[Int] = []
        right: list[Int] = []

        def at(classes: Int, index: Int) -> Int:
            return starts[classes] + np.where(is_frozen[classes], 0, index)

        if len(self.run_table):
            a, a0, b, b0, n = self.run_table.T
            row = np.repeat(np.arange(len(n)), n)
            step = np.arange(len(row)) - np.repeat(np.cumsum(n) - n, n)
            left.append(at(a[row], a0[row] + step))
            right.append(at(b[row], b0[row] + step))
        for axis_a, index_a, axis_b, index_b in self.ties.index_pairs:
            a_class = np.full(len(index_a), self.of(axis_a))
            b_class = np.full(len(index_b), self.of(axis_b))
            left.append(at(a_class, index_a))
            right.append(at(b_class, index_b))
        for whole, index, target in plain:
            left.append(at(np.full(len(index), whole), np.arange(len(index))))
            right.append(at(np.full(len(index), target), index))
        total = int(width.sum())
        component = _components(total, _concat(left), _concat(right))
        reason_of: dict[int, str] = {}
        for frozen, reason in self.frozen.items():
            reason_of.setdefault(int(component[starts[frozen]]), reason)
        for owner, indices, reason in self.frozen_slices:
            for slice_ in at(np.full(len(indices), owner), indices):
                reason_of.setdefault(int(component[slice_]), reason)
        for whole in self._unremovable(component, starts, width, is_frozen):
            reason_of.setdefault(whole, ALL_OF_AN_AXIS)
        return starts, component, reason_of

    def _unremovable(
        self, component: Int, starts: Int, width: Int, is_frozen: NDArray[np.bool_]
    ) -> list[int]:
        """Return the components that hold every slice of one axis and a slice of a longer one."""
        if not len(component):
            return []
        some = width > 0  # an axis without slices has no component
        first = np.minimum.reduceat(component, starts[some])
        one = first == np.maximum.reduceat(component, starts[some])
        whole = first[one & ~is_frozen[some]]
        long = np.zeros(int(component.max()) + 1, dtype=np.bool_)
        long[component[np.repeat((width > 1) & ~is_frozen, width)]] = True
        found: list[int] = np.unique(whole[long[whole]]).tolist()
        return found

    def _frozen_by_slices(
        self, starts: Int, component: Int, reason_of: dict[int, str]
    ) -> dict[int, str]:
        """Return the free classes whose every slice turned out frozen."""
        if not reason_of:
            return {}
        bad = np.zeros(int(component.max()) + 1, dtype=np.bool_)
        bad[list(reason_of)] = True
        bad_slice = bad[component]
        if not bad_slice.any():
            return {}
        some = np.flatnonzero(self.length > 0)
        ends = starts[some] + np.where(self._is_frozen()[some], 1, self.length[some])
        before = np.concatenate(([0], np.cumsum(bad_slice)))
        whole = some[before[ends] - before[starts[some]] == ends - starts[some]]
        return {
            owner: reason_of[int(component[starts[owner]])]
            for owner in whole.tolist()
            if owner not in self.frozen
        }

    def _pack(
        self,
        visible_axes: int,
        choices: Sequence[_Reduced],
        starts: Int,
        component: Int,
        reason_of: dict[int, str],
    ) -> Coupling:
        reasons = sorted(set(reason_of.values()))
        number = {reason: k for k, reason in enumerate(reasons)}
        count = int(component.max()) + 1 if len(component) else 0
        component_reason = np.full(count, -1, dtype=np.int32)
        for item, reason in reason_of.items():
            component_reason[item] = number[reason]
        ties = self.ties
        return Coupling(
            axis_class=self.class_of[:visible_axes].astype(np.int32),
            class_length=self.length_all,
            class_start=starts,
            class_frozen=self._is_frozen(),
            component=component.astype(np.int32),
            component_reason=component_reason,
            reasons=tuple(reasons),
            views=tuple(ClassView(v.whole, v.factors, v.operator) for v in choices),
            changes=tuple(
                ClassChange(
                    c.operator, c.key, c.position, c.length, self.of(c.axis), c.low, c.high, c.sign
                )
                for c in ties.changes
                if self.of(c.axis) not in self.frozen
            ),
            selections=tuple(
                ClassSelection(
                    s.operator,
                    s.key,
                    self.of(s.axis),
                    tuple(map(self.of, s.along)),
                    s.values,
                    s.sources,
                )
                for s in ties.selections
                if self.of(s.axis) not in self.frozen
            ),
            renormalised=tuple(
                dict.fromkeys(
                    (op, self.of(axis))
                    for op, axis in ties.renormalised
                    if self.of(axis) not in self.frozen
                )
            ),
            costs=tuple((op, k, tuple(map(self.of, axes))) for op, k, axes in ties.costs),
        )


def _concat(parts: Sequence[Int]) -> Int:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _components(count: int, left: Int, right: Int) -> Int:
    """Return the connected component of each of ``count`` points, numbered by first appearance."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    if not count:
        return np.empty(0, dtype=np.int64)
    ones = np.ones(len(left), dtype=np.int8)
    graph = csr_array((ones, (left.astype(np.int32), right.astype(np.int32))), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    component: Int = label.astype(np.int64)
    return component
