"""The solved coupling of a graph: numpy arrays, nothing else.

Axes that are the same axis form a *class*; the slices of all classes lie one after another, and
``component`` says which group each slice belongs to. What a cut can still choose between is in
``views``. This is all that a cut analysis reads, so it can be stored, sent and loaded anywhere.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClassView:
    """Class ``whole`` is the row-major product of the classes ``factors``; each can be pruned."""

    whole: int
    factors: tuple[int, ...]
    operator: int


@dataclass(frozen=True, slots=True)
class ClassChange:
    """``key[position]`` of an operator counts the indices [low, high) of a class.

    ``sign`` is -1 where the constant is negative and rises (a bound counted from the end).
    """

    operator: int
    key: str
    position: int | None
    length: int
    owner: int
    low: int
    high: int
    sign: int


@dataclass(frozen=True, slots=True)
class ClassSelection:
    """A constant of an operator that holds indices into the class ``owner``.

    A negative entry counts from the end. ``sources`` names the nodes that hold the entries.
    """

    operator: int
    key: str
    owner: int
    along: tuple[int, ...]
    values: Int
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Coupling:
    """Classes, components and views of one graph.

    Shapes: ``axis_class`` (axes of all tensors), ``class_length``, ``class_start`` and
    ``class_frozen`` (classes), ``component`` (slices of all classes; a frozen class has one),
    ``component_reason`` (components; -1, or an index into ``reasons``).
    """

    axis_class: NDArray[np.int32]
    class_length: Int
    class_start: Int
    class_frozen: NDArray[np.bool_]
    component: NDArray[np.int32]
    component_reason: NDArray[np.int32]
    reasons: tuple[str, ...]
    views: tuple[ClassView, ...]
    changes: tuple[ClassChange, ...]
    selections: tuple[ClassSelection, ...]
    renormalised: tuple[tuple[int, int], ...]
    costs: tuple[tuple[int, int, tuple[int, ...]], ...]

    def components_of(self, owner: int) -> NDArray[np.int32]:
        """Return the component of each slice of a class, shape ``(class_length,)``.

        A frozen class has one component for all its slices.
        """
        start = int(self.class_start[owner])
        width = 1 if self.class_frozen[owner] else int(self.class_length[owner])
        return self.component[start : start + width]

    @cached_property
    def classes_of_component(self) -> tuple[Int, NDArray[np.int32]]:
        """Return ``(starts, classes)``: component ``k`` reaches ``classes[starts[k]:starts[k+1]]``."""
        width = np.where(self.class_frozen, 1, self.class_length)
        owner = np.repeat(np.arange(len(width), dtype=np.int64), width)
        key = np.sort(self.component.astype(np.int64) * len(width) + owner)
        key = key[np.diff(key, prepend=-1) > 0]
        component, classes = np.divmod(key, max(len(width), 1))
        starts = np.searchsorted(component, np.arange(len(self.component_reason) + 1))
        return starts.astype(np.int64), classes.astype(np.int32)

    @cached_property
    def kinds(self) -> tuple[NDArray[np.int32], list[list[int]]]:
        """Return each component's kind, and the classes that components of each kind reach.

        Components of one kind reach the same classes: they are the slices of one group. There are
        about as many kinds as groups, however wide those are.
        """
        starts, classes = self.classes_of_component
        if not len(classes):
            return np.empty(0, dtype=np.int32), []
        present = np.flatnonzero(np.diff(starts))
        code = np.random.default_rng(0).integers(1, 2**62, len(self.class_length), dtype=np.uint64)
        signature = np.add.reduceat(code[classes], starts[present])
        _, first, number = np.unique(signature, return_index=True, return_inverse=True)
        kind = np.zeros(len(self.component_reason), dtype=np.int32)
        kind[present] = number
        reached = [classes[starts[c] : starts[c + 1]].tolist() for c in present[first]]
        return kind, reached

    @cached_property
    def views_of_class(self) -> dict[int, list[int]]:
        """The positions in ``views`` that each class takes part in."""
        found: dict[int, list[int]] = defaultdict(list)
        for position, view in enumerate(self.views):
            for owner in dict.fromkeys((view.whole, *view.factors)):
                found[owner].append(position)
        return dict(found)

    @cached_property
    def axes_of_class(self) -> tuple[Int, Int]:
        """Return ``(starts, axes)``: class ``k`` has the axes ``axes[starts[k]:starts[k+1]]``."""
        order = np.argsort(self.axis_class, kind="stable").astype(np.int64)
        starts = np.searchsorted(self.axis_class[order], np.arange(len(self.class_length) + 1))
        return starts.astype(np.int64), order

    @cached_property
    def changes_of_class(self) -> dict[int, list[ClassChange]]:
        """The operator constants that count slices of each class."""
        found: dict[int, list[ClassChange]] = defaultdict(list)
        for change in self.changes:
            found[change.owner].append(change)
        return dict(found)

    @cached_property
    def costs_of_class(self) -> dict[int, list[int]]:
        """The positions in ``costs`` that each class is a factor of."""
        found: dict[int, list[int]] = defaultdict(list)
        for position, (_, _, classes) in enumerate(self.costs):
            for owner in dict.fromkeys(classes):
                found[owner].append(position)
        return dict(found)
