"""The best plan there is, by mixed-integer programming: the reference for small networks.

One binary a group and width; a product of two groups' widths is a product of two binaries, which is
linear in one more variable for each pair. Exact for costs with at most two groups in a product.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

from torchpruner_core.planning.solver import Problem


def least_loss(problem: Problem, name: str, limit: float) -> float:
    """Return the least score that is lost under ``limit``."""
    choices = problem.choices
    starts, rows = choices.first[:-1], np.diff(choices.first)
    constant, linear, pairs = _expanded(problem, name)
    begins, count = {}, len(choices.keep)
    for key, table in pairs.items():
        begins[key] = count
        count += table.size
    constraints = 1 + len(rows) + sum(rows[a] + rows[b] for a, b in pairs)
    matrix = lil_array((constraints, count))
    low, high = np.zeros(constraints), np.zeros(constraints)
    matrix[0, : len(linear)] = linear
    for key, table in pairs.items():
        matrix[0, begins[key] : begins[key] + table.size] = table.ravel()
    low[0], high[0], at = -np.inf, limit - constant, 1
    for group in range(len(rows)):
        matrix[at, starts[group] : starts[group] + rows[group]] = 1
        low[at] = high[at] = 1
        at += 1
    for (a, b), table in pairs.items():
        begin = begins[a, b]
        for i in range(rows[a]):
            matrix[at, begin + i * rows[b] : begin + (i + 1) * rows[b]] = 1
            matrix[at, starts[a] + i] = -1
            at += 1
        for j in range(rows[b]):
            matrix[at, begin + j : begin + table.size : rows[b]] = 1
            matrix[at, starts[b] + j] = -1
            at += 1
    whole = np.zeros(count)
    whole[: len(choices.keep)] = 1
    objective = np.zeros(count)
    objective[: len(choices.keep)] = choices.loss
    found = milp(
        objective,
        constraints=LinearConstraint(matrix.tocsr(), low, high),
        integrality=whole,
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 1e-6, "time_limit": 120},
    )
    assert found.success, found.message
    return float(found.fun)


def _expanded(problem: Problem, name: str):
    """Return a cost as a constant, a number a row, and a table for each pair of groups."""
    choices = problem.choices
    starts, rows = choices.first[:-1], np.diff(choices.first)
    gone = [choices.keep[s] - choices.keep[s : s + n] for s, n in zip(starts, rows, strict=True)]
    reach = defaultdict(list)
    for group, each in enumerate(choices.groups):
        for owner, slices in zip(each.classes, each.slices, strict=True):
            reach[owner].append((group, slices))
    products = problem.resources[name].products
    constant, linear = 0.0, np.zeros(len(choices.keep))
    pairs: dict[tuple[int, int], np.ndarray] = {}
    for factor, owners in zip(products.factor, products.index, strict=True):
        terms = {(): float(factor)}
        for owner in (c for c in owners if c != products.classes):
            longer: dict[tuple[int, ...], float] = defaultdict(float)
            for groups, number in terms.items():
                longer[groups] += number * problem.full[owner]
                for group, slices in reach[owner]:
                    longer[tuple(sorted((*groups, group)))] -= number * slices
            terms = longer
        for groups, number in terms.items():
            distinct = sorted(set(groups))
            powers = [gone[g].astype(float) ** groups.count(g) for g in distinct]
            if not distinct:
                constant += number
            elif len(distinct) == 1:
                begin = starts[distinct[0]]
                linear[begin : begin + rows[distinct[0]]] += number * powers[0]
            else:
                a, b = distinct
                table = pairs.setdefault((a, b), np.zeros((rows[a], rows[b])))
                table += number * np.outer(*powers)
    return constant, linear, pairs
