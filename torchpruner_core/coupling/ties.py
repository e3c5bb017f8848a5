"""What goes together: the ties, views and frozen axes that operators declare.

An *axis* is a number: one for each axis of each tensor, and further *virtual* ones that no tensor
shows (the groups of a grouped convolution). A *slice* is one index along one axis. Operators
declare here, and the solver reads:

- ``same``: two axes of one length are tied index by index;
- ``run``/``pairs``: only some indices are (concatenations, splits, constant gathers);
- ``view``: an axis is the product of several (reshapes, grouped convolutions);
- ``opaque``: an axis, or some of its indices, cannot be shortened, with the reason;
- ``copy`` and ``source``: an axis made by repeating, and one that carries data of its own;
- ``change``: a constant or attribute of an operator that counts slices of an axis;
- ``renormalises``: an operator whose statistics run over an axis;
- ``contracts``: an operator that sums over an axis, which is exact where the removed slices are zero;
- ``cost``: the FLOPs of an operator as a product of axis lengths.

Memory is the number of axes plus the number of declared runs, never a product of lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Axis = int


@dataclass(frozen=True, slots=True)
class Change:
    """``key[position]`` of an operator falls by the removed indices of ``axis`` in [low, high).

    ``position`` is ``None`` for a scalar, ``length`` how many entries the constant has, and ``sign``
    -1 where the constant is negative and rises.
    """

    operator: int
    key: str
    position: int | None
    length: int
    axis: Axis
    low: int
    high: int
    sign: int = 1


@dataclass(frozen=True, slots=True)
class Selection:
    """A constant of indices into ``axis`` that must be renumbered when ``axis`` is cut.

    ``along`` are the axes of the constant's own shape (``values.shape``); a negative entry counts
    from the end. ``sources`` names the stored tensors that hold the entries, where none is computed.
    """

    operator: int
    key: str
    axis: Axis
    along: tuple[Axis, ...]
    values: NDArray[np.int64]
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """``whole`` is the row-major product of ``factors`` (two or more, each longer than one)."""

    whole: Axis
    factors: tuple[Axis, ...]
    operator: int


@dataclass(slots=True)
class Ties:
    """All that the operators of one graph declared; read once by the solver."""

    lengths: list[int] = field(default_factory=list)
    same_pairs: list[tuple[Axis, Axis]] = field(default_factory=list)
    runs: list[tuple[Axis, int, Axis, int, int]] = field(default_factory=list)
    index_pairs: list[tuple[Axis, NDArray[np.int64], Axis, NDArray[np.int64]]] = field(
        default_factory=list
    )
    views: list[View] = field(default_factory=list)
    opaque_axes: dict[Axis, str] = field(default_factory=dict)
    opaque_slices: list[tuple[Axis, NDArray[np.int64], str]] = field(default_factory=list)
    copies: set[Axis] = field(default_factory=set)
    sources: set[Axis] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)
    selections: list[Selection] = field(default_factory=list)
    renormalised: list[tuple[int, Axis]] = field(default_factory=list)
    contracted: list[tuple[int, tuple[Axis, ...], Axis]] = field(default_factory=list)
    costs: list[tuple[int, int, tuple[Axis, ...]]] = field(default_factory=list)
    operator: int = -1
    """The operator that is declaring."""
    mentioned: set[Axis] = field(default_factory=set)
    """The axes that the declaring operator has said something about."""
    _marks: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)

    def begin(self, operator: int) -> None:
        """Let ``operator`` declare from here on."""
        self.operator = operator
        self.mentioned.clear()
        self._marks[operator] = self._declared()

    def _declared(self) -> tuple[int, int, int, int]:
        return len(self.same_pairs), len(self.runs), len(self.index_pairs), len(self.views)

    def links(self, operator: int) -> list[tuple[Axis, ...]]:
        """Return the axes that one operator ties to one another, a tuple for each declaration."""
        end = self._marks.get(operator + 1) or self._declared()
        same, runs, pairs, views = map(slice, self._marks[operator], end)
        return [
            *self.same_pairs[same],
            *((run[0], run[2]) for run in self.runs[runs]),
            *((pair[0], pair[2]) for pair in self.index_pairs[pairs]),
            *((view.whole, *view.factors) for view in self.views[views]),
        ]

    def new_axis(self, length: int) -> Axis:
        """Return a new axis of ``length`` slices."""
        self.lengths.append(int(length))
        return len(self.lengths) - 1

    def new_axes(self, shape: Sequence[int]) -> Axis:
        """Return the first of ``len(shape)`` consecutive new axes."""
        first = len(self.lengths)
        self.lengths.extend(map(int, shape))
        return first

    def same(self, a: Axis, b: Axis) -> None:
        """Tie every index of ``a`` to the same index of ``b``.

        Axes whose lengths differ (one is not known before the model runs) cannot be shortened.
        """
        self.mentioned.add(a)
        self.mentioned.add(b)
        if self.lengths[a] != self.lengths[b]:
            for axis in (a, b):
                self.opaque(axis, "its size is not known before the model runs")
        elif a != b:
            self.same_pairs.append((a, b))

    def run(self, a: Axis, a_start: int, b: Axis, b_start: int, length: int) -> None:
        """Tie ``a[a_start + i]`` to ``b[b_start + i]`` for ``0 <= i < length``."""
        self.mentioned.update((a, b))
        if length <= 0:
            return
        if length == self.lengths[a] == self.lengths[b]:
            self.same(a, b)
        else:
            self.runs.append((a, a_start, b, b_start, length))

    def pairs(
        self, a: Axis, a_index: NDArray[np.int64], b: Axis, b_index: NDArray[np.int64]
    ) -> None:
        """Tie ``a[a_index[i]]`` to ``b[b_index[i]]``."""
        self.mentioned.update((a, b))
        self.index_pairs.append((a, a_index, b, b_index))

    def view(self, whole: Axis, factors: Sequence[Axis]) -> None:
        """Declare ``whole`` the row-major product of ``factors``; factors of length one drop out."""
        self.mentioned.add(whole)
        self.mentioned.update(factors)
        kept = tuple(axis for axis in factors if self.lengths[axis] != 1)
        if not kept:
            return
        if len(kept) == 1:
            self.same(whole, kept[0])
        else:
            self.views.append(View(whole, kept, self.operator))

    def opaque(self, axis: Axis, reason: str) -> None:
        """Declare that no rule can shorten ``axis``."""
        self.mentioned.add(axis)
        self.opaque_axes.setdefault(axis, reason)

    def opaque_at(self, axis: Axis, index: NDArray[np.int64], reason: str) -> None:
        """Declare that ``index`` along ``axis`` cannot be removed."""
        self.mentioned.add(axis)
        self.opaque_slices.append((axis, index, reason))

    def copy(self, axis: Axis) -> None:
        """Declare ``axis`` made by repeating one slice."""
        self.mentioned.add(axis)
        self.copies.add(axis)

    def free(self, *axes: Axis) -> None:
        """Declare that ``axes`` can be shortened without consequence for this operator."""
        self.mentioned.update(axes)

    def source(self, axis: Axis) -> None:
        """Declare that ``axis`` carries data of its own."""
        self.sources.add(axis)

    def change(
        self,
        key: str,
        axis: Axis,
        position: int | None = None,
        length: int = 1,
        low: int = 0,
        high: int | None = None,
        *,
        sign: int = 1,
    ) -> None:
        """Declare that the operator's ``key[position]`` counts the slices [low, high) of ``axis``."""
        stop = self.lengths[axis] if high is None else high
        self.changes.append(Change(self.operator, key, position, length, axis, low, stop, sign))

    def selection(
        self,
        key: str,
        axis: Axis,
        along: Sequence[Axis],
        values: NDArray[np.int64],
        sources: Sequence[str] = (),
    ) -> None:
        """Declare the operator's constant ``key`` to hold indices into ``axis``.

        ``sources`` are the values that hold these very entries, if they are stored as they are used.
        """
        self.selections.append(
            Selection(self.operator, key, axis, tuple(along), values, tuple(sources))
        )

    def renormalises(self, axis: Axis) -> None:
        """Declare that the operator computes a statistic over ``axis``."""
        self.mentioned.add(axis)
        self.renormalised.append((self.operator, axis))

    def contracts(self, *axes: Axis, over: Axis | None = None) -> None:
        """Declare that the operator sums products over ``axes``, one axis of each factor.

        Removing a slice changes nothing where one of its factors is zero once the parameters
        that go with it are; elsewhere the operator is one that ``renormalises``. ``over`` is the
        axis summed over where it is only a part of ``axes``.
        """
        self.mentioned.update(axes)
        self.contracted.append((self.operator, axes, axes[0] if over is None else over))

    def cost(self, factor: int, axes: Sequence[Axis]) -> None:
        """Add ``factor`` times the product of the lengths of ``axes`` to the operator's FLOPs."""
        self.costs.append((self.operator, factor, tuple(axes)))
