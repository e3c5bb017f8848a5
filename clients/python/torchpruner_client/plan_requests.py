"""Plans as the API takes and gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torchpruner_core.planning.budget import Budget
from torchpruner_core.planning.plan import Plan, make_rules
from torchpruner_core.planning.rules import Rules
from torchpruner_core.planning.scores import Scores


def plan_body(
    budget: Budget | Mapping[str, Any],
    scores: Scores | Mapping[Any, Any] | None,
    importance: str | None,
    rules: Rules | None,
    options: Mapping[str, Any],
    *,
    frontier: Sequence[float] = (),
    order: bool = False,
    name: str | None = None,
) -> dict[str, Any]:
    """Return the body of a plan's request. Raises the planner's errors for what means nothing.

    A budget that holds a latency needs no runtime here: the service measures.
    """
    read = make_rules(rules, options)
    plain = read.to_dict()
    usual = Rules().to_dict()
    found: dict[str, Any] = {
        "budget": budget.to_dict() if isinstance(budget, Budget) else dict(budget),
        "rules": {
            key: dict(value) if key not in ("protect",) and isinstance(value, list) else value
            for key, value in plain.items()
            if value != usual[key]
        },
    }
    if scores is not None:
        found["scores"] = Scores.read(scores).to_dict()
    if importance is not None:
        found["importance"] = importance
    if frontier:
        found["frontier"] = [float(each) for each in frontier]
    if order:
        found["order"] = True
    if name is not None:
        found["name"] = name
    return found


def plan_of(view: Mapping[str, Any]) -> Plan:
    """Return the plan that the service made."""
    return Plan.from_dict({**view["plan"], "result": view["result"]})


def orders_of(view: Mapping[str, Any]) -> dict[tuple[str, int], tuple[int, ...]]:
    """Return the slices of each axis in the order in which the plan's scores let them go."""
    return {
        (str(node), int(dim)): tuple(each["index"])
        for each in view["order"] or ()
        for node, dim in each["axes"]
    }
