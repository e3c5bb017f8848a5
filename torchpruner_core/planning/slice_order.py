"""The order in which scores let slices go: what a slider over one axis takes first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.planning.planner import Planner


@dataclass(frozen=True, eq=False)
class SliceOrder:
    """``index`` has every slice of each of ``axes``, ``(node, dim)``, that which goes first in front.

    Slices that go together (a head's) stand beside each other.
    """

    axes: tuple[tuple[str, int], ...]
    index: NDArray[np.int64]


def slice_orders(planner: Planner) -> tuple[SliceOrder, ...]:
    """Return the order of every axis of a parameter or buffer that a plan may shorten.

    Without scores the last slices go first, as they do in a plan.
    """
    units = planner.units
    coupling = planner.graph.coupling
    worth = np.full(units.count, np.inf)
    axes: dict[int, list[tuple[str, int]]] = {}
    for group, scores in zip(planner.choices.groups, planner.unit_scores, strict=True):
        worth[group.units] = scores
        for node, dim in group.members:
            owner = planner.graph.classes_of(node)[dim]
            found = axes.setdefault(owner, [])
            if (node, dim) not in found:
                found.append((node, dim))
    orders = []
    for owner, members in axes.items():
        start, length = int(coupling.class_start[owner]), int(coupling.class_length[owner])
        unit = units.of_slice[start : start + length]
        # Of equal scores the later unit goes first, as in a plan.
        orders.append(SliceOrder(tuple(members), np.lexsort((-unit, worth[unit]))))
    return tuple(orders)
