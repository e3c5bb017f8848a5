"""Parts of an axis that are split off in equal sizes stay equal.

``a, b = x.chunk(2, 1)`` and ``x.split((self.c, self.c), 1)`` hold only while both parts are as wide as one
another, though nothing else couples their slices. So the units of the parts go together, paired by
rank: the lowest score of one with the lowest of the other.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.coupling import ClassChange
from torchpruner_core.planning.units import Units, with_pairs

Int = NDArray[np.int64]


def with_equal_parts(units: Units, scores: NDArray[np.float64]) -> Units:
    """Return the units in which those of equal parts are paired by ``scores``, shape ``(units,)``."""
    left, right = [], []
    for parts in _equal_splits(units):
        lead = _ranked(units, parts[0], scores)
        for part in parts[1:]:
            other = _ranked(units, part, scores)
            if len(other) == len(lead):
                left.append(lead)
                right.append(other)
    if not left:
        return units
    a, b = np.concatenate(left), np.concatenate(right)
    return units if np.array_equal(a, b) else with_pairs(units, a, b)


def _equal_splits(units: Units) -> list[list[Int]]:
    """Return the units of each part, for every split into equal parts that share no unit."""
    coupling = units.graph.coupling
    splits: dict[int, list[ClassChange]] = defaultdict(list)
    for change in coupling.changes:
        if change.key == "split":
            splits[change.operator].append(change)
    found = []
    for changes in splits.values():
        if len({change.owner for change in changes}) != 1 or len(changes) != changes[0].length:
            continue
        if len({change.high - change.low for change in changes}) != 1:
            continue
        start = int(coupling.class_start[changes[0].owner])
        parts = [units.of_slice[start + c.low : start + c.high] for c in changes]
        if len(np.unique(np.concatenate(parts))) == sum(len(np.unique(part)) for part in parts):
            found.append(parts)
    return found


def _ranked(units: Units, part: Int, scores: NDArray[np.float64]) -> Int:
    """Return the units of a part, lowest score first; as they stand where they are of several groups."""
    distinct, position = np.unique(part, return_index=True)
    distinct = distinct[np.argsort(position, kind="stable")]
    group = np.full(units.count, -1, dtype=np.int64)
    for each in units.groups:
        group[each.units] = each.id
    if len(np.unique(group[distinct])) > 1:
        return distinct
    return distinct[np.argsort(scores[distinct], kind="stable")]
