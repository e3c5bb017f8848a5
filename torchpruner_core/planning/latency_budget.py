"""Widths for a measured latency: profile once, solve, measure the pruned model, correct.

No model of a machine is exact: the profile says how the time is shared out between operators, each taken
as proportional to its own product of widths, and the pruned model's own clock says how far that is off.
HALP (Shen et al. 2022, https://arxiv.org/abs/2110.10811) plans on such a table and stops there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.graph_data import GraphData
from torchpruner_core.cut_result import CutResult
from torchpruner_core.planning.costs import Products, Resource, Sum
from torchpruner_core.planning.errors import InfeasibleBudgetError
from torchpruner_core.planning.planner import Planner, Progress, ask
from torchpruner_core.planning.records import LatencyRound, Timing

Int = NDArray[np.int64]

ROUNDS = 4
"""Measurements of pruned models at most."""

AIM = 0.97
"""What is aimed at, as a share of the target: noise must not lift the result above it."""

CLOSE = 0.95
"""A result at or under the target, and above this share of it, is not improved upon."""


class Session(Protocol):
    """One model on one runtime."""

    def profile(self) -> Mapping[str, float]:
        """Return the seconds of each operator, by the graph's operator names, ``""`` for the rest."""
        ...

    def compare(self, cut: CutResult | None) -> tuple[Timing, Timing]:
        """Return the timings of the original and the pruned model, measured alternately."""
        ...


class Runtime(Protocol):
    """Something that models are timed on."""

    def session(self, graph: Any) -> Session:
        """Return a session of ``graph``'s model."""
        ...


@dataclass(frozen=True)
class Measured:
    """The rows chosen, their cut, and every round of measurements."""

    rows: Int
    cut: CutResult
    rounds: tuple[LatencyRound, ...]


def latency_of(graph: GraphData, seconds: Mapping[str, float], total: float) -> Sum:
    """Return the latency as a polynomial, for a profile and the measured ``total`` of the model."""
    rows: list[tuple[float, tuple[int, ...]]] = []
    length = graph.coupling.class_length
    products: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
    names = list(graph.operators)
    for position, factor, owners in graph.coupling.costs:
        products.setdefault(names[position], []).append((factor, owners))
    scale = total / max(sum(seconds.values()), 1e-12)
    for name, operator in graph.operators.items():
        spent = seconds.get(name, 0.0) * scale
        if not spent:
            continue
        terms = products.get(name)
        if not terms:
            output = max(operator.outputs, key=lambda n: np.prod(graph.nodes[n].shape, dtype=float))
            terms = [(1, graph.classes_of(output))]
        sizes = [
            factor * np.prod(length[list(owners)], dtype=np.float64) for factor, owners in terms
        ]
        for (factor, owners), size in zip(terms, sizes, strict=True):
            rows.append((spent * (size / sum(sizes)) * factor / size, owners))
    rows.append((seconds.get("", 0.0) * scale, ()))
    return Sum(Products.merged(rows, len(length)))


def _next_aim(points: Sequence[tuple[float, float]], target: float) -> float:
    """Return what to aim at so that ``target`` is measured, from ``(aim, measured)`` so far.

    A line through the two points nearest to the target: part of the time does not depend on any width.
    """
    (aim, measured), *others = sorted(points, key=lambda point: abs(point[1] - target))
    for other_aim, other in others:
        slope = (measured - other) / (aim - other_aim) if aim != other_aim else 0.0
        if slope > 0:
            found = aim + (target - measured) / slope
            # A line through two noisy points may be nearly flat: a step is half the way at most.
            return min(max(found, aim / 2), 2 * aim)
    return aim * target / measured


def plan_latency(
    planner: Planner,
    session: Session,
    amount: Callable[[float], float],
    resources: Mapping[str, Resource],
    limits: Mapping[str, float],
    report: Progress,
) -> Measured:
    """Return the widths under which the pruned model was measured at or under the target.

    ``amount`` gives the target in seconds for the original model's own time.

    Raises ``InfeasibleBudgetError`` where no round was, and what the runtime raises.
    """
    ask(report, "profiling", 0.0)
    seconds = session.profile()
    original, _ = session.compare(None)
    model = latency_of(planner.graph, seconds, original.median)
    aim = amount(original.median) * AIM
    points = [(original.median, original.median)]
    rounds: list[LatencyRound] = []
    best: Measured | None = None
    for number in range(ROUNDS):
        ask(report, "measuring", (number + 0.5) / (ROUNDS + 1))
        least = model.value(planner.choices.widths(planner.costs.widths, planner.choices.last))
        rows = planner.rows(
            {**resources, "latency": model},
            {**limits, "latency": max(aim, least)},
            lambda stage, done: None,
        )
        cut = planner.cut(rows)
        before, after = session.compare(cut)
        target = amount(before.median)
        noise = abs(after.median - target) <= max(after.spread, before.spread)
        rounds.append(LatencyRound(before, after, aim, target, cut.flops_after, noise))
        if after.median <= target:
            if best is None or cut.flops_after > best.cut.flops_after:
                best = Measured(rows, cut, ())
            if after.median >= CLOSE * target:
                break
        if after.median > target and not (rows < planner.choices.last).any():
            break  # the least that the rules allow was measured
        points.append((aim, after.median * original.median / before.median))
        # In the last round nothing is left to correct with, so it aims lower.
        care = AIM if number < ROUNDS - 2 else AIM * AIM
        aim = max(_next_aim(points, amount(original.median) * care), least)
    if best is None:
        multiples = (
            "; widths off the runtime's multiples are often slower: try round_to=8 or 16"
            if planner.rules.round_to == 1
            else ""
        )
        nearest = min(rounds, key=lambda each: each.pruned.median / each.target)
        raise InfeasibleBudgetError(
            f"the nearest of {len(rounds)} rounds measured {nearest.pruned.median:.3g} s, and "
            f"{nearest.target:.3g} s was asked for (the original took {nearest.original.median:.3g} s "
            "beside it); ask for a longer time, protect less or lower min_keep, or measure on a "
            f"quieter machine{multiples}",
            budget="latency",
            asked=nearest.target,
            nearest=nearest.pruned.median,
            before=nearest.original.median,
            blocked_by=[],
        )
    return Measured(best.rows, best.cut, tuple(rounds))
