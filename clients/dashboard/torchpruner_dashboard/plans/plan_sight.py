"""What the plan page shows of a plan, whether it is a point of a frontier or a plan of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torchpruner_client import FrontierPoint
from torchpruner_core.planning.plan import Plan
from torchpruner_core.planning.records import LatencyRound, PlannedGroup

BOUNDS = {
    "budget": "cut as far as the budget asks",
    "max_cut": "as much as may go of one group",
    "min_keep": "the least that must stay",
    "round_to": "the next multiple would be too narrow",
}


@dataclass(frozen=True)
class PlanSight:
    """``widths`` and ``bounds`` are in the order of ``groups``; ``score_kept`` is a share of all scores.
    ``problem`` says why there is nothing."""

    groups: Sequence[PlannedGroup]
    widths: Sequence[int]
    bounds: Sequence[str | None]
    costs: Mapping[str, Mapping[str, Any]]
    score_kept: float | None
    rounds: Sequence[LatencyRound] = ()
    problem: str = ""

    @classmethod
    def of_point(cls, plan: Plan, point: FrontierPoint) -> PlanSight:
        """A point of the frontier that came with ``plan``."""
        return cls(
            plan.groups,
            point.widths,
            point.bounds,
            point.costs,
            point.score_kept,
            problem=point.problem or "",
        )

    @classmethod
    def of_plan(cls, plan: Plan) -> PlanSight:
        """A plan by itself."""
        scored = [group for group in plan.groups if group.score_before]
        whole = sum(group.score_before or 0.0 for group in scored)
        kept = sum(group.score_after or 0.0 for group in scored)
        return cls(
            plan.groups,
            [group.after for group in plan.groups],
            [group.bound for group in plan.groups],
            {name: asdict(cost) for name, cost in plan.costs.items()},
            kept / whole if whole else None,
            plan.rounds,
        )

    def rows(self) -> list[tuple[PlannedGroup, int, str]]:
        """Each group, the width that is left of it, and why; in the model's order."""
        found = []
        for group, after, bound in zip(self.groups, self.widths, self.bounds, strict=False):
            if after < group.before:
                why = BOUNDS.get(bound or "budget", bound or "")
            else:
                why = group.reason or "other groups matter less"
            found.append((group, after, why))
        return found
