"""Parts of an axis that are split off in equal sizes stay equal, and so do a recurrent module's layers.

``a, b = x.chunk(2, 1)`` and ``x.split((self.c, self.c), 1)`` hold only while both parts are as wide as one
another, though nothing else couples their slices. So the units of the parts go together, paired by
rank: the lowest score of one with the lowest of the other. The same holds of the layers and directions of
one ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN``, which has one hidden size for all.
"""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.coupling import ClassChange
from torchpruner_core.planning.units import Units, with_pairs

Int = NDArray[np.int64]

HIDDEN = re.compile(r"weight_hh_l\d+(_reverse)?")
"""What PyTorch's recurrent modules call the weights that read a hidden state."""


def with_equal_parts(units: Units, scores: NDArray[np.float64]) -> Units:
    """Return the units in which those of equal parts are paired by ``scores``, shape ``(units,)``."""
    left, right = [], []
    for parts in (*_equal_splits(units), *_equal_layers(units)):
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
        if _apart(parts):
            found.append(parts)
    return found


def _equal_layers(units: Units) -> list[list[Int]]:
    """Return the units of each layer's and direction's hidden state, for every recurrent module."""
    hidden: dict[str, list[Int]] = defaultdict(list)
    for name, node in units.graph.nodes.items():
        module, _, own = name.rpartition(".")
        if node.kind == "parameter" and HIDDEN.fullmatch(own) and len(node.shape) == 2:
            hidden[module].append(units.of_axis(name, 1)[0])
    return [
        parts
        for parts in hidden.values()
        if len(parts) > 1 and len({len(part) for part in parts}) == 1 and _apart(parts)
    ]


def _apart(parts: list[Int]) -> bool:
    """Whether no unit is of two parts."""
    return len(np.unique(np.concatenate(parts))) == sum(len(np.unique(part)) for part in parts)


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
