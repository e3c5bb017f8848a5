"""Widths under hard budgets: keep as much score as the exact, multilinear cost allows.

With ``scope="global"`` this is a knapsack whose weights depend on one another. A greedy path removes, a
small share of the cost at a time, what loses the least score for what it saves at the widths of the
moment. The first state on the path that meets every limit is then repaired against the exact cost:
what fits is given back, and steps are exchanged as long as that keeps more score. With the other
scopes the order of the steps is given by ranks alone, and the first prefix that meets the limits is
taken, less the steps of groups that have nothing to do with the limit that binds.

Everything is deterministic; the path of one cost is independent of the limit and serves every budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.planning.choices import Choices
from torchpruner_core.planning.costs import Resource

Int = NDArray[np.int64]
Float = NDArray[np.float64]

BATCH = 1 / 400
"""The share of the whole cost that one batch of the greedy path removes."""

ROUNDS = 400
"""Repairs at most; each keeps more score than the one before."""

PROBES = 9
"""Widths tried of a group when it is rebuilt, evenly over its range."""

WORK = 60_000
"""Rows of the table, and products of the costs, that rebuilding looks at: what keeps planning quick.

Small networks, where a single layer matters, are searched through; in large ones the path is as good.
"""

LANDED = 0.01
"""How near to a budget, as a share of it, is near enough."""

LANDING_LOSS = 0.005
"""The share of the kept score that getting nearer may cost."""

CANDIDATES = 24
"""Groups tried on each side of an exchange: those with the most to win and the least to lose."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Choices, the widths before a cut, and the costs that are limited."""

    choices: Choices
    full: Int
    resources: Mapping[str, Resource]

    def costs(self, rows: Int) -> dict[str, float]:
        """Return each cost when every group keeps what its row says."""
        widths = self.choices.widths(self.full, rows)
        return {name: resource.value(widths) for name, resource in self.resources.items()}

    def meets(self, rows: Int, limits: Mapping[str, float]) -> bool:
        """Return whether no cost is above its limit."""
        widths = self.choices.widths(self.full, rows)
        return all(
            resource.value(widths) <= limits[name] for name, resource in self.resources.items()
        )

    def fitting(self, many: Int, limits: Mapping[str, float]) -> NDArray[np.bool_]:
        """Return which of many states, shape ``(states, groups)``, meet every limit."""
        widths = np.stack([self.choices.widths(self.full, rows) for rows in many])
        fits = np.ones(len(many), dtype=np.bool_)
        for name, resource in self.resources.items():
            fits &= resource.values(widths) <= limits[name]
        return fits


class GreedyPath:
    """States from the whole model down to the least it can be; ``weights`` scale the costs."""

    def __init__(self, problem: Problem, limits: Mapping[str, float] | None = None) -> None:
        self.problem = problem
        self.limits = limits
        full = problem.costs(np.zeros_like(problem.choices.last))
        self.scale = {
            name: 1 / max(value - (limits[name] if limits else 0), 1e-12)
            for name, value in full.items()
        }
        self.points: list[Int] = [np.zeros_like(problem.choices.last)]
        while True:
            group = self.batch(self.points[-1])
            if not len(group):
                break
            rows = self.points[-1].copy()
            np.add.at(rows, group, 1)
            self.points.append(rows)
            if limits and problem.meets(rows, limits):
                break

    def batch(self, rows: Int) -> Int:
        """Return the groups that take the next steps, in order, for about ``BATCH`` of the cost."""
        choices = self.problem.choices
        widths = choices.widths(self.problem.full, rows)
        pressure = np.zeros(choices.classes + 1)
        for name, resource in self.problem.resources.items():
            limit = self.limits[name] if self.limits else 0
            if not self.limits or resource.value(widths) > limit:
                pressure += resource.pressure(widths, limit) * self.scale[name]
        rate = choices.unit_rate(pressure)
        return _cheapest_steps(choices, rows, rate, BATCH)

    def first_within(self, limits: Mapping[str, float]) -> Int | None:
        """Return the first state that meets ``limits``; ``None`` where none does."""
        point = _first_true(len(self.points), lambda k: self.problem.meets(self.points[k], limits))
        if point is None or point == 0:
            return None if point is None else self.points[0]
        before = self.points[point - 1]
        return _first_state(self.problem, before, self.batch(before), limits)


def _cheapest_steps(choices: Choices, rows: Int, rate: Float, saving: float) -> Int:
    """Return the groups whose next steps lose the least score for what they save, in order.

    ``rate`` is what one unit of each group saves; the steps go on until ``saving`` is reached.
    """
    left = choices.last - rows
    count = np.where(rate > 0, left, 0)
    if np.isfinite(saving):
        multiple = np.array([limit.multiple for limit in choices.limits], dtype=np.int64)
        with np.errstate(divide="ignore"):
            enough = np.where(rate > 0, saving / (multiple * rate), 0)
        count = np.minimum(count, 1 + np.minimum(enough, left).astype(np.int64))
        count = np.where(rate > 0, count, 0)
    group = np.repeat(np.arange(len(count)), count)
    step = np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count)
    row = choices.first[group] + rows[group] + step
    saved = (choices.keep[row] - choices.keep[row + 1]) * rate[group]
    lost = choices.loss[row + 1] - choices.loss[row]
    order = np.argsort(lost / saved, kind="stable")
    taken = int(np.searchsorted(np.cumsum(saved[order]), saving)) + 1
    return group[order[:taken]]


class RankedPath:
    """Steps in the order of their ranks: every pool of groups loses the same share at any time."""

    def __init__(self, problem: Problem, pools: Sequence[int], scores: Sequence[Float]) -> None:
        self.problem = problem
        choices = problem.choices
        ranks = _ranks(choices, np.asarray(pools), scores)
        keys, groups = [], []
        for k, rank in enumerate(ranks):
            keep = choices.keep[choices.first[k] : choices.first[k + 1]]
            gone = keep[0] - keep
            keys.append(rank[(gone[:-1] + gone[1:]) // 2])
            groups.append(np.full(len(gone) - 1, k, dtype=np.int64))
        key = np.concatenate(keys) if keys else np.empty(0)
        group = np.concatenate(groups) if groups else np.empty(0, dtype=np.int64)
        self.steps: Int = group[np.argsort(key, kind="stable")]

    def first_within(self, limits: Mapping[str, float]) -> Int | None:
        """Return the first state that meets ``limits``; ``None`` where none does."""
        start = np.zeros_like(self.problem.choices.last)
        return _first_state(self.problem, start, self.steps, limits)

    def relaxed(self, rows: Int, limits: Mapping[str, float]) -> Int:
        """Return a state that meets ``limits``, without the steps in ``rows`` that save nothing.

        A peak is reached at few groups. The others go back along the path until one of them reaches it
        too, and then the rest without that one.
        """
        free = rows > 0
        while True:
            free &= ~_bearing(self.problem, rows, limits)
            start = np.where(free, 0, rows)
            found = _first_state(self.problem, start, self.steps[free[self.steps]], limits)
            if found is None or np.array_equal(found, rows):
                return rows
            rows = found
            free &= rows > 0


def _bearing(problem: Problem, rows: Int, limits: Mapping[str, float]) -> NDArray[np.bool_]:
    """Return the groups of which one step given back raises the cost that is nearest to its limit."""
    costs = problem.costs(rows)
    name = max(costs, key=lambda name: costs[name] / max(limits[name], 1e-12))
    back = np.maximum(rows - np.eye(len(rows), dtype=np.int64), 0)
    widths = np.stack([problem.choices.widths(problem.full, each) for each in back])
    raised: NDArray[np.bool_] = problem.resources[name].values(widths) > costs[name]
    return raised


def _ranks(choices: Choices, pools: Int, scores: Sequence[Float]) -> list[Float]:
    """Return the rank of each unit in its pool, from 0 to 1, in each group's order of removal."""
    ranks: list[Float] = [np.empty(0)] * len(choices.groups)
    for pool in np.unique(pools).tolist():
        members = np.flatnonzero(pools == pool).tolist()
        values = np.concatenate([np.sort(scores[k]) for k in members])
        rank = np.empty(len(values))
        rank[np.argsort(values, kind="stable")] = (np.arange(len(values)) + 0.5) / len(values)
        parts = np.split(rank, np.cumsum([len(scores[k]) for k in members])[:-1])
        for k, part in zip(members, parts, strict=True):
            ranks[k] = np.maximum.accumulate(part)
    return ranks


def _first_state(
    problem: Problem, start: Int, steps: Int, limits: Mapping[str, float]
) -> Int | None:
    def state(count: int) -> Int:
        rows = start.copy()
        np.add.at(rows, steps[:count], 1)
        return rows

    count = _first_true(len(steps) + 1, lambda k: problem.meets(state(k), limits))
    return None if count is None else state(count)


def _first_true(count: int, holds: object) -> int | None:
    """Return the first ``k`` below ``count`` for which ``holds(k)``, which stays true from there."""
    assert callable(holds)
    if not holds(count - 1):
        return None
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def give_back(problem: Problem, rows: Int, limits: Mapping[str, float], most: Int) -> Int:
    """Return ``rows`` with steps given back while every limit holds, the most score first.

    ``most`` is how many steps each group may be given.
    """
    choices = problem.choices
    rows, most = rows.copy(), np.minimum(most, rows)
    while True:
        able = np.flatnonzero(most > 0)
        if not len(able):
            return rows
        many = np.repeat(rows[None], len(able), axis=0)
        many[np.arange(len(able)), able] -= 1
        fits = problem.fitting(many, limits)
        most[able[~fits]] = 0  # what does not fit now does not fit later
        if not fits.any():
            return rows
        able = able[fits]
        at = choices.first[able] + rows[able]
        gain = choices.loss[at] - choices.loss[at - 1]
        best = int(able[np.argmax(gain)])
        rows[best] -= 1
        most[best] -= 1


def exchange(problem: Problem, rows: Int, limits: Mapping[str, float]) -> Int:
    """Return ``rows`` with steps moved between groups while that keeps more score."""
    choices = problem.choices
    for _ in range(ROUNDS):
        better = _best_exchange(problem, rows, limits)
        if better is None:
            return rows
        rows = give_back(problem, better, limits, choices.last)
    return rows


def _best_exchange(problem: Problem, rows: Int, limits: Mapping[str, float]) -> Int | None:
    choices = problem.choices
    at = choices.first[:-1] + rows
    up = np.flatnonzero(rows > 0)
    down = np.flatnonzero(rows < choices.last)
    if not len(up) or not len(down):
        return None
    gain = choices.loss[at[up]] - choices.loss[at[up] - 1]
    pain = choices.loss[at[down] + 1] - choices.loss[at[down]]
    up, gain = _best(up, -gain)
    down, pain = _best(down, pain)
    found: list[tuple[float, Int]] = []
    for steps in (1, 2, 4, 8):
        for a, won in zip(up.tolist(), (-gain).tolist(), strict=True):
            for b in down.tolist():
                if a == b or rows[b] + steps > choices.last[b]:
                    continue
                lost = choices.loss[at[b] + steps] - choices.loss[at[b]]
                if lost < won * (1 - 1e-9):
                    state = rows.copy()
                    state[a] -= 1
                    state[b] += steps
                    found.append((won - lost, state))
    if not found:
        return None
    found.sort(key=lambda entry: -entry[0])
    for begin in range(0, len(found), 64):
        part = found[begin : begin + 64]
        fits = problem.fitting(np.stack([state for _, state in part]), limits)
        if fits.any():
            return part[int(np.argmax(fits))][1]
    return None


def _best(groups: Int, key: Float) -> tuple[Int, Float]:
    order = np.argsort(key, kind="stable")[:CANDIDATES]
    return groups[order], key[order]


def rebuild(problem: Problem, rows: Int, limits: Mapping[str, float]) -> Int:
    """Return ``rows`` after single groups were set to other widths and the others followed.

    Where two widths are multiplied, a wide and a narrow layer can keep more than two alike, and no
    short step leads from the one to the other. The others follow from where they are, and from
    their whole width.
    """
    choices = problem.choices
    terms = sum(len(resource.products.factor) for resource in problem.resources.values())
    left = WORK // (len(choices.keep) + 20 * terms)
    best, improved = choices.lost(rows), True
    while improved and left > 0:
        improved = False
        for group in np.argsort(-choices.last, kind="stable").tolist():
            for row in np.unique(np.linspace(0, choices.last[group], PROBES).astype(np.int64)):
                for start in (rows, np.zeros_like(rows)):
                    if row == start[group] or left <= 0:
                        continue
                    left -= 1
                    trial = start.copy()
                    trial[group] = row
                    found = _followed(problem, trial, group, limits)
                    if found is not None and choices.lost(found) < best * (1 - 1e-9):
                        rows, best, improved = found, choices.lost(found), True
    return rows


def land(problem: Problem, rows: Int, limits: Mapping[str, float]) -> Int:
    """Return ``rows`` moved up to the budget, where that costs next to no score.

    Steps of a few wide layers may not fit what is left of a budget. One of them given back, and the
    narrower ones of others taken instead, ends nearer to what was asked for.
    """
    choices = problem.choices
    kept = float(choices.worth - choices.lost(rows))
    most = choices.lost(rows) + LANDING_LOSS * kept
    left = _slack(problem, rows, limits)
    found = rows
    for group in np.flatnonzero(rows > 0).tolist():
        for steps in (1, 2):
            if left <= LANDED or rows[group] < steps:
                continue
            trial = rows.copy()
            trial[group] -= steps
            moved = _followed(problem, trial, group, limits)
            if moved is None or choices.lost(moved) > most:
                continue
            slack = _slack(problem, moved, limits)
            if slack < left:
                found, left = moved, slack
    return found


def _slack(problem: Problem, rows: Int, limits: Mapping[str, float]) -> float:
    """Return how far the nearest cost is below its limit, as a share of it."""
    costs = problem.costs(rows)
    return min(1 - value / max(limits[name], 1e-12) for name, value in costs.items())


def _followed(problem: Problem, rows: Int, group: int, limits: Mapping[str, float]) -> Int | None:
    """Return ``rows`` after all but ``group`` gave what the limits ask for."""
    choices = problem.choices
    while not problem.meets(rows, limits):
        widths = choices.widths(problem.full, rows)
        pressure = np.zeros(choices.classes + 1)
        most = 0.0
        for name, resource in problem.resources.items():
            above = resource.value(widths) - limits[name]
            if above > 0:
                limit = max(limits[name], 1e-12)
                pressure += resource.pressure(widths, limits[name]) / limit
                most += above / limit
        rate = choices.unit_rate(pressure)
        rate[group] = 0.0
        steps = _cheapest_steps(choices, rows, rate, max(most / 4, 1 / 64))
        if not len(steps):
            return None
        found = _first_state(problem, rows, steps, limits)
        if found is None:
            rows = rows.copy()
            np.add.at(rows, steps, 1)
        else:
            rows = found
    return give_back(problem, rows, limits, choices.last)
