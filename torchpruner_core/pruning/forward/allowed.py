"""In which ways a cut shortens tensors: what a rehearsed call may give, and what it may not.

It is assumed that a cut tells the shapes of what it shortens, as every analysis does; a size that only data
decides stands for any. Nothing is run here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.cut_result import AxisCuts, CutResult
from torchpruner_core.pruning.forward.trace import Call

Vector = tuple[int, ...]
"""How much each axis of a tensor shrinks."""

MOST_PARTS = 8
"""A split into more parts than this is not guessed at."""


class Allowed:
    """The ways in which the cut shortens a tensor.

    Where the cut carries the shapes it was made for, a tensor's old shape tells which new shapes it
    may have; without them only the difference does.
    """

    def __init__(self, cut: CutResult, literals: Mapping[str, AxisCuts]) -> None:
        self.vectors: set[Vector] = set()
        self._pairs: set[tuple[Vector, Vector]] = set()
        self._axes: dict[tuple[Vector, int], list[NDArray[np.int64]]] = {}
        for tensors in (cut.terminal, literals, cut.iner):
            for name, axes in tensors.items():
                vector = tuple(0 if a is None else len(a) for a in axes)
                self.vectors.add(vector)
                if name in cut.shapes:
                    shape = tuple(cut.shapes[name])
                    after = tuple(s - v for s, v in zip(shape, vector, strict=True))
                    self._pairs.add((shape, after))
                    for axis, gone in enumerate(axes):
                        if gone is not None:
                            self._axes.setdefault((shape, axis), []).append(gone)
        if not cut.shapes:
            for change in cut.operator.values():
                amount = change.get("shape")
                if isinstance(amount, list):
                    self.vectors.add(tuple(amount))
        self._open = [(shape, after) for shape, after in self._pairs if -1 in shape]
        self._loose = {tuple(sorted(filter(None, vector))) for vector in self.vectors}

    def exactly(self, before: Vector, now: Vector) -> bool:
        """Tell whether the cut turns some tensor of shape ``before`` into one of shape ``now``."""
        if self._pairs:
            return now in self._of_size(before)
        return shrinkage(before, now) in self.vectors

    def becomes(self, before: Vector) -> list[Vector]:
        """Return the shapes that tensors of shape ``before`` have after the cut, if it tells."""
        return sorted(after for after in self._of_size(before) if after != before)

    def _of_size(self, before: Vector) -> set[Vector]:
        """Return what tensors of a size become; a size that data decides (-1) stands for any."""
        found = {after for shape, after in self._pairs if shape == before}
        for shape, after in self._open:
            if fits(before, shape):
                found.add(tuple(x if y == -1 else y for x, y in zip(before, after, strict=True)))
        return found

    def removed(self, before: Vector, axis: int, count: int) -> NDArray[np.int64] | None:
        """Return the ``count`` indices that go from an axis of tensors of shape ``before``, if all agree."""
        found = [gone for gone in self._axes.get((before, axis), ()) if len(gone) == count]
        same = all(np.array_equal(found[0], other) for other in found)
        return found[0] if found and same else None

    def removals(self, size: int) -> list[NDArray[np.int64]]:
        """Return the different indices that go from axes of some size."""
        found = {
            tuple(gone.tolist()): gone
            for (shape, axis), cuts in self._axes.items()
            if shape[axis] == size
            for gone in cuts
            if len(gone)
        }
        return list(found.values())

    def splits(self, before: Call, now: Call) -> Iterator[Vector]:
        """Yield other lengths of as much in all that a splitting call's parts may have after the cut."""
        rank = len(before.shapes[0])
        if len(before.shapes) > MOST_PARTS or any(len(s) != rank for s in now.shapes):
            return
        for axis in range(rank):
            made = tuple(shape[axis] for shape in now.shapes)
            choices = [
                dict.fromkeys(s[axis] for s in (shape, *self.becomes(shape)))
                for shape in before.shapes
            ]
            for sizes in itertools.product(*choices):
                if sum(sizes) == sum(made) and sizes != made:
                    yield sizes

    def loosely(self, before: Vector, now: Vector) -> bool:
        """Tell whether some tensor loses as much, whichever its axes."""
        vector = shrinkage(before, now)
        return vector is not None and tuple(sorted(filter(None, vector))) in self._loose


def shrinkage(before: Sequence[int], now: Sequence[int]) -> Vector | None:
    """Return how much each axis is shorter; ``None`` for another rank."""
    if len(before) != len(now):
        return None
    return tuple(x - y for x, y in zip(before, now, strict=True))


def fits(shape: Vector, expected: Vector) -> bool:
    """Tell whether a shape is the expected one, in which -1 is a size that only data decides."""
    return len(shape) == len(expected) and all(
        wanted in (size, -1) for size, wanted in zip(shape, expected, strict=True)
    )
