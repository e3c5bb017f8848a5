"""What a choice of widths means for each group: widths, scores, what bound it, what it saves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.planning.costs import Resource
from torchpruner_core.planning.planner import Planner
from torchpruner_core.planning.records import PlannedGroup

Int = NDArray[np.int64]

NOT_NEEDED = (
    "none of it had to go: what its first step loses is worth more than what it saves, beside "
    "the steps that were taken"
)
SAVES_NOTHING = "nothing that the budget limits depends on its width"
RATIO = "the common ratio rounds to its whole width"


def describe_groups(planner: Planner, rows: Int, resource: Resource) -> tuple[PlannedGroup, ...]:
    """Return every group, those that were cut first; ``resource`` is the cost that is told."""
    choices = planner.choices
    full = planner.costs.widths
    states = [rows]
    for k in range(len(choices.groups)):
        for row in (0, min(rows[k] + 1, choices.last[k])):
            states.append(rows.copy())
            states[-1][k] = row
    widths = np.stack([choices.widths(full, state) for state in states])
    values = resource.values(widths).astype(np.float64)
    saved, after_next = values[1::2] - values[0], values[2::2]
    next_saves = values[0] - after_next
    costs = _costs(planner, resource, widths[0])
    kept = choices.kept(rows)
    found: list[PlannedGroup] = []
    position = {k: j for j, k in enumerate(planner.free)}
    for k, (group, limit) in enumerate(zip(planner.units.groups, planner.limits, strict=True)):
        before = len(group.units) * group.step
        if k not in position:
            found.append(
                PlannedGroup(
                    group.node,
                    group.dim,
                    group.members,
                    before,
                    before,
                    group.step,
                    reason=limit.reason,
                    least=before,
                )
            )
            continue
        j = position[k]
        left = int(kept[j])
        touched = left < len(group.units)
        at_end = rows[j] == choices.last[j]
        scores = np.sort(planner.unit_scores[j])
        gone = len(scores) - left
        scored = planner.scores is not None
        found.append(
            PlannedGroup(
                group.node,
                group.dim,
                group.members,
                before,
                left * group.step,
                group.step,
                bound=(limit.bound if at_end else "budget") if touched else None,
                reason=None if touched else _reason(planner, float(next_saves[j])),
                cost=float(costs[j]),
                saved=float(saved[j]),
                next_saves=None if at_end else float(next_saves[j]),
                least=limit.lowest * group.step,
                score_before=float(scores.sum()) if scored else None,
                score_after=float(scores[gone:].sum()) if scored else None,
                highest_removed=float(scores[gone - 1]) if scored and gone else None,
                lowest_kept=float(scores[gone]) if scored else None,
            )
        )
    found.sort(key=lambda group: not group.touched)
    return tuple(found)


def _reason(planner: Planner, saves: float) -> str:
    if not saves:
        return SAVES_NOTHING
    return NOT_NEEDED if planner.scores is not None and planner.rules.scope == "global" else RATIO


def _costs(planner: Planner, resource: Resource, widths: Int) -> NDArray[np.float64]:
    """Return the cost of every product that a group's width is a factor of, shape ``(groups,)``."""
    products = resource.products
    value = products.values(widths).astype(np.float64)
    total = np.zeros(len(planner.choices.groups))
    has = np.zeros((len(products.index), products.classes + 1), dtype=np.bool_)
    has[np.arange(len(products.index))[:, None], products.index] = True
    for k, group in enumerate(planner.choices.groups):
        total[k] = value[has[:, list(group.classes)].any(axis=1)].sum() / resource.divisor
    return total
