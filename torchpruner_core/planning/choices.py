"""The widths each group may have, in one flat table that the solver steps through.

A row of the table is a number of units that a group keeps. Rows of a group follow one another from all
of its units downwards, and what is lost on the way is known: the units with the lowest scores go first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.planning.errors import RuleError
from torchpruner_core.planning.rules import Rules, Selection
from torchpruner_core.planning.units import UnitGroup

Int = NDArray[np.int64]
Float = NDArray[np.float64]

ONE_UNIT = "it is one unit, and one is left of every group"
NARROW = "it is {width} slices wide, and round_to={multiple} leaves no smaller width"
MAX_CUT = "max_cut lets less than one step of it go"
MIN_KEEP = "min_keep lets less than one step of it go"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the rules say of one group, in units: multiples kept, and how many are left at least."""

    multiple: int
    lowest: int
    reason: str | None
    bound: str


@dataclass(frozen=True, eq=False)
class Choices:
    """The groups that can be cut, and the table of what each may keep.

    ``first`` is each group's first row, shape ``(groups + 1,)``; ``keep`` the units kept and ``loss`` the
    score lost in each row, of the ``worths`` of each. ``order`` holds each group's units, those that go
    first at the front.
    """

    groups: tuple[UnitGroup, ...]
    limits: tuple[Limits, ...]
    order: tuple[Int, ...]
    first: Int
    keep: Int
    loss: Float
    worths: Float
    classes: int

    @cached_property
    def last(self) -> Int:
        """The number of steps each group can take, shape ``(groups,)``."""
        return np.diff(self.first) - 1

    @cached_property
    def _incidence(self) -> tuple[Int, Int, Int, Int]:
        group = np.repeat(np.arange(len(self.groups)), [len(g.classes) for g in self.groups])
        owner = np.array([c for g in self.groups for c in g.classes], dtype=np.int64)
        slices = np.array([n for g in self.groups for n in g.slices], dtype=np.int64)
        starts = np.cumsum([0, *(len(g.classes) for g in self.groups)])
        return group, owner, slices, starts

    def weighed(self, weight: Float) -> Choices:
        """Return the choices with the scores of each group times ``weight``, shape ``(groups,)``."""
        loss = self.loss * np.repeat(weight, np.diff(self.first))
        worth = self.worths * weight
        return replace(self, loss=loss, worths=worth)

    @property
    def worth(self) -> float:
        """The score of all units together."""
        return float(self.worths.sum())

    def kept(self, rows: Int) -> Int:
        """Return the units each group keeps, for its row of the table."""
        kept: Int = self.keep[self.first[:-1] + rows]
        return kept

    def lost(self, rows: Int) -> float:
        """Return the score that is lost in all."""
        return float(self.loss[self.first[:-1] + rows].sum())

    def widths(self, full: Int, rows: Int) -> Int:
        """Return the width of each class, for widths ``full`` before the cut."""
        group, owner, slices, _ = self._incidence
        gone = self.keep[self.first[:-1]] - self.kept(rows)
        widths = full.copy()
        np.subtract.at(widths, owner, slices * gone[group])
        return widths

    def unit_rate(self, by_class: Float) -> Float:
        """Return the sum of ``by_class`` over the slices of one unit of each group."""
        _, owner, slices, starts = self._incidence
        if not len(self.groups):
            return np.empty(0)
        rate: Float = np.add.reduceat(by_class[owner] * slices, starts[:-1])
        return rate


def find_limits(
    selection: Selection,
    rules: Rules,
    groups: Sequence[UnitGroup],
    floors: Mapping[tuple[str, int], int],
) -> list[Limits]:
    """Return what the rules say of each group; ``floors`` are slices of axes that must be left.

    Raises ``RuleError`` where a rule names nothing, or a multiple is larger than every width.
    """
    protected = {
        axis: selector
        for selector in reversed(rules.protect)
        for axis in selection.axes(selector, "protect")
    }
    entries = {
        name: selection.each(getattr(rules, name), name)
        for name in ("round_to", "min_keep", "max_cut")
    }
    found: list[Limits] = []
    widest = 0
    for group in groups:
        if group.reason is not None:
            found.append(Limits(1, len(group.units), group.reason, ""))
            continue
        guarded = next((protected[a] for a in group.members if a in protected), None)
        if guarded is not None:
            count = len(group.units)
            found.append(Limits(1, count, f"protected by {_named(guarded)}", ""))
            continue
        widest = max(widest, len(group.units) * group.step)
        numbers = {
            name: [n for axes, n in each if axes is None or not axes.isdisjoint(group.members)]
            for name, each in entries.items()
        }
        found.append(_limits(group, numbers, floors))
    _check_multiples(groups, entries["round_to"], widest)
    return found


def _named(selector: object) -> str:
    return f"dim {selector[1]} of {selector[0]}" if isinstance(selector, tuple) else str(selector)


def _limits(
    group: UnitGroup, numbers: Mapping[str, list[float]], floors: Mapping[tuple[str, int], int]
) -> Limits:
    count = len(group.units)
    to = math.lcm(*map(int, numbers["round_to"]))
    multiple = math.lcm(*(to // math.gcd(to, slices) for slices in group.physical))
    slices = max([1, *map(int, numbers["min_keep"])])
    by_keep = max(1, math.ceil(slices / group.step))
    share = min([1.0, *numbers["max_cut"]])
    # A share such as 0.3 is not exact: 0.3 of 10 units is three.
    by_cut = math.ceil(count * (1 - share) - 1e-9)
    floor = floors.get((group.node, group.dim))
    if floor is not None:
        by_cut = max(by_cut, math.ceil(floor / group.step))
    lowest = min(count, max(by_keep, by_cut))
    bound = "max_cut" if by_cut > by_keep else "min_keep"
    reason = None
    if count == 1:
        reason = ONE_UNIT
    elif lowest == count:
        reason = MAX_CUT if by_cut >= count else MIN_KEEP
    else:
        rounded = multiple * math.ceil(lowest / multiple)
        if rounded > lowest:
            lowest, bound = rounded, "round_to"
        if lowest >= count:
            lowest = count
            reason = NARROW.format(width=count * group.step, multiple=to)
    return Limits(multiple, lowest, reason, bound)


def _check_multiples(
    groups: Sequence[UnitGroup], entries: list[tuple[set[tuple[str, int]] | None, int]], widest: int
) -> None:
    for axes, multiple in entries:
        widths = [
            len(group.units) * group.step
            for group in groups
            if group.reason is None and axes is not None and not axes.isdisjoint(group.members)
        ]
        largest = max(widths, default=0) if axes is not None else widest
        if largest and multiple > largest:
            raise RuleError(
                f"round_to={multiple} is larger than the widest axis it is asked for, which has "
                f"{largest} slices: no width would be left; ask for a smaller multiple",
                rule="round_to",
                received=int(multiple),
                widest=largest,
            )


def make_choices(
    groups: Sequence[UnitGroup], limits: Sequence[Limits], scores: Sequence[Float], classes: int
) -> Choices:
    """Return the table for groups with their units' ``scores``, each of shape ``(units,)``.

    Of equal scores the later unit goes first.
    """
    keep, loss, order = [], [], []
    for group, limit, values in zip(groups, limits, scores, strict=True):
        count = len(group.units)
        ascending = np.lexsort((-np.arange(count), values))
        order.append(group.units[ascending])
        top = limit.multiple * ((count - 1) // limit.multiple)
        rows = np.arange(top, limit.lowest - 1, -limit.multiple, dtype=np.int64)
        rows = np.concatenate([[count], rows])
        lost = np.concatenate([[0.0], np.cumsum(values[ascending])])
        keep.append(rows)
        loss.append(lost[count - rows])
    first = np.cumsum([0, *map(len, keep)])
    return Choices(
        tuple(groups),
        tuple(limits),
        tuple(order),
        first,
        np.concatenate(keep) if keep else np.empty(0, dtype=np.int64),
        np.concatenate(loss) if loss else np.empty(0),
        np.array([values.sum() for values in scores], dtype=np.float64),
        classes,
    )
