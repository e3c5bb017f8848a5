"""From a graph, scores and rules to plans for any budget; what is common to them is made once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.coupling import ClassView
from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import CutRequest, CutResult
from torchpruner_core.errors import PlanError
from torchpruner_core.planning.aggregation import check_scores, normalised, unit_scores
from torchpruner_core.planning.budget import Budget
from torchpruner_core.planning.choices import Choices, Limits, find_limits, make_choices
from torchpruner_core.planning.costs import Costs, Resource
from torchpruner_core.planning.equal_parts import with_equal_parts
from torchpruner_core.planning.errors import (
    BudgetError,
    InfeasibleBudgetError,
    NothingToPruneError,
    PlanCancelledError,
    ScoresError,
)
from torchpruner_core.planning.rules import Rules, Selection
from torchpruner_core.planning.scores import Scores
from torchpruner_core.planning.solver import (
    GreedyPath,
    Problem,
    RankedPath,
    exchange,
    give_back,
    land,
    rebuild,
)
from torchpruner_core.planning.units import UnitGroup, Units, find_units

Int = NDArray[np.int64]
Float = NDArray[np.float64]

Progress = Callable[[str, float], Any]
"""Called with a stage's name and the fraction done; ``False`` cancels."""

NO_SCORES = "no scores were given for it"


class Planner:
    """Everything about a graph, scores and rules that does not depend on the budget.

    ``floors`` are slices of axes that must be left whatever the rules say.

    Raises ``ScoresError``, ``RuleError`` or ``NothingToPruneError``.
    """

    def __init__(
        self,
        graph: SolvedGraph,
        scores: Scores | None,
        rules: Rules,
        floors: Mapping[tuple[str, int], int] | None = None,
    ) -> None:
        self.graph = graph
        self.scores = scores
        self.rules = rules
        self.selection = Selection(graph)
        if scores is not None:
            check_scores(graph, scores)
        self.costs = Costs(graph)
        self.inner_axes = self._inner_axes()  # unknown names are told, whatever the graph has
        units = find_units(graph, self._takes_inner)
        raw, has = self._raw_scores(units)
        paired = with_equal_parts(units, raw)
        if paired is not units:
            units = paired
            raw, has = self._raw_scores(units)
        self.units = units
        self.limits = [
            self._with_scores(group, limit, has)
            for group, limit in zip(
                units.groups,
                find_limits(self.selection, rules, units.groups, floors or {}),
                strict=True,
            )
        ]
        free = [k for k, limit in enumerate(self.limits) if limit.reason is None]
        if not free:
            raise self._nothing()
        self.free = free
        groups = [units.groups[k] for k in free]
        self.unit_scores = [
            -np.arange(len(group.units), dtype=np.float64)
            if scores is None
            else normalised(raw, group, rules.normalize)
            for group in groups
        ]
        self.choices: Choices = make_choices(
            groups, [self.limits[k] for k in free], self.unit_scores, self.costs.classes
        )
        self._paths: dict[str, GreedyPath] = {}

    def _takes_inner(self, view: ClassView) -> bool:
        entries = self.inner_axes
        if entries is None:
            return self.rules.granularity == "inner"
        graph = self.graph
        starts, axes = graph.coupling.axes_of_class
        if view.whole + 1 >= len(starts):
            return False
        members = axes[starts[view.whole] : starts[view.whole + 1]].tolist()
        return any(graph.axis_owner[axis][:2] in entries for axis in members)

    def _inner_axes(self) -> set[tuple[str, int]] | None:
        if not isinstance(self.rules.granularity, Mapping):
            return None
        entries = self.selection.each(self.rules.granularity, "granularity")
        return set().union(*(axes or set() for axes, which in entries if which == "inner"))

    def _raw_scores(self, units: Units) -> tuple[Float, NDArray[np.bool_]]:
        if self.scores is None:
            return np.zeros(units.count), np.ones(units.count, dtype=np.bool_)
        return unit_scores(units, self.scores, self.rules.aggregate)

    def _with_scores(self, group: UnitGroup, limit: Limits, has: NDArray[np.bool_]) -> Limits:
        if limit.reason is None and not has[group.units].all():
            return Limits(1, len(group.units), NO_SCORES, "")
        return limit

    def _nothing(self) -> PlanError:
        reasons = Counter(limit.reason for limit in self.limits if limit.reason)
        told = "; ".join(f"{count} groups: {reason}" for reason, count in reasons.most_common(5))
        if NO_SCORES in reasons:
            return ScoresError("the scores are for no group that can be cut: " + told)
        return NothingToPruneError(
            f"no group is left that the plan may cut ({told or 'the model has no parameter'}); "
            "protect less, lower min_keep or round_to, or raise max_cut",
            reasons=dict(reasons),
        )

    @cached_property
    def full_costs(self) -> dict[str, float]:
        """What the model costs before a cut, by the name of each cost but the latency."""
        names = ("flops", "macs", "params", "bytes", "memory")
        return {name: self.costs[name].value(self.costs.widths) for name in names}

    def problem(self, resources: Mapping[str, Resource]) -> Problem:
        """Return the problem of keeping ``resources`` low."""
        choices = self.choices
        if self.scores is not None and self.rules.normalize == "cost":
            pressure = np.zeros(self.costs.classes + 1)
            for resource in resources.values():  # a group may cost parameters and no FLOPs
                total = float(resource.products.values(self.costs.widths).sum()) or 1.0
                pressure += resource.products.gradient(self.costs.widths) / total
            rate = choices.unit_rate(pressure) / [group.step for group in choices.groups]
            choices = choices.weighed(rate / (rate.mean() or 1.0))
        return Problem(choices, self.costs.widths, resources)

    def rows(
        self, resources: Mapping[str, Resource], limits: Mapping[str, float], report: Progress
    ) -> Int:
        """Return the row of the table for each free group, all limits held.

        Raises ``InfeasibleBudgetError``.
        """
        problem = self.problem(resources)
        if not problem.meets(self.choices.last, limits):
            raise self._infeasible(problem, limits)
        ask(report, "choosing widths", 0.0)
        if self.scores is None or self.rules.scope != "global":
            path = RankedPath(problem, self._pools, self.unit_scores)
            rows = path.first_within(limits)
            assert rows is not None
            rows = path.relaxed(rows, limits)
            return give_back(problem, rows, limits, np.ones_like(rows))
        rows = self._path(problem, limits).first_within(limits)
        if rows is None:  # where a cost depends on no group's score, or steps save nothing at first
            rows = self.choices.last.copy()
        ask(report, "choosing widths", 0.5)
        rows = give_back(problem, rows, limits, self.choices.last)
        rows = exchange(problem, rows, limits)
        ask(report, "choosing widths", 0.7)
        rows = exchange(problem, rebuild(problem, rows, limits), limits)
        return land(problem, rows, limits)

    def _path(self, problem: Problem, limits: Mapping[str, float]) -> GreedyPath:
        names = list(problem.resources)
        if len(names) > 1 or names[0] in ("memory", "latency"):
            return GreedyPath(problem, limits)
        if names[0] not in self._paths:
            self._paths[names[0]] = GreedyPath(problem)
        return self._paths[names[0]]

    @cached_property
    def _pools(self) -> list[int]:
        """The number of the pool that each free group is ranked in."""
        if self.scores is None or self.rules.scope == "local":
            return list(range(len(self.choices.groups)))
        seen: dict[Any, int] = {}
        return [seen.setdefault(self._structure(g), len(seen)) for g in self.choices.groups]

    def _structure(self, group: UnitGroup) -> Any:
        """Return what isomorphic groups share: their members' types, shapes and dims."""
        graph = self.graph
        entries = []
        for name, dim in group.members:
            owner, _, leaf = name.rpartition(".")
            module = graph.modules.get(owner)
            kind = module.type if module is not None else ""
            entries.append((kind, leaf, graph.nodes[name].shape, dim))
        return len(group.units), tuple(sorted(entries))

    def _infeasible(self, problem: Problem, limits: Mapping[str, float]) -> InfeasibleBudgetError:
        least = problem.costs(self.choices.last)
        name = next(name for name, value in least.items() if value > limits[name])
        before = problem.costs(np.zeros_like(self.choices.last))[name]
        held: Counter[str] = Counter(limit.reason for limit in self.limits if limit.reason)
        held.update(
            f"{limit.bound} leaves no less of it" for limit in self.limits if limit.reason is None
        )
        told = "; ".join(f"{count} groups: {reason}" for reason, count in held.most_common(4))
        asked = limits[name]
        # Nobody wants a network of fifty operations.
        share = f" For a share of it write '{asked}%'." if asked <= 100 else ""
        return InfeasibleBudgetError(
            f"{name} can go down to {least[name]:,} under these rules, {least[name] / before:.1%} "
            f"of {before:,}, and at most {asked:,} was asked for.{share} What holds it back: {told}. "
            "Ask for no less than that, or protect less, lower min_keep or round_to, raise max_cut",
            budget=name,
            asked=asked,
            nearest=least[name],
            before=before,
            blocked_by=[
                {"reason": reason, "groups": count} for reason, count in held.most_common()
            ],
        )

    def cut(self, rows: Int) -> CutResult:
        """Return the joint cut that leaves every group what its row says.

        Raises ``PlanError`` where it costs other than the polynomial says: an error of this library.
        """
        gone = np.zeros(self.units.count, dtype=np.bool_)
        kept = self.choices.kept(rows)
        for group, order, left in zip(
            self.choices.groups, self.choices.order, kept.tolist(), strict=True
        ):
            gone[order[: len(group.units) - left]] = True
        requests = self._requests(gone)
        if not requests:
            return self._no_cut()
        result = self.graph.cut_analysis_many(requests, granularity="strict", protect_io=True)
        widths = self.choices.widths(self.costs.widths, rows)
        flops, params = (self.costs[name].value(widths) for name in ("flops", "params"))
        if (result.flops_after, result.params_after) != (flops, params):
            raise PlanError(
                f"the cut leaves {result.flops_after:,} FLOPs and {result.params_after:,} parameters "
                f"where {flops:,} and {params:,} were planned; this is an error of this library: "
                "please report it with the model",
                expected=[flops, params],
                received=[result.flops_after, result.params_after],
            )
        return result

    def _requests(self, gone: NDArray[np.bool_]) -> list[CutRequest]:
        coupling = self.graph.coupling
        asked: dict[int, tuple[str, int]] = {}
        for group in self.choices.groups:
            for node, dim in group.members:
                asked.setdefault(self.graph.classes_of(node)[dim], (node, dim))
        found = []
        for owner, (node, dim) in asked.items():
            start, length = int(coupling.class_start[owner]), int(coupling.class_length[owner])
            index = np.flatnonzero(gone[self.units.of_slice[start : start + length]])
            if len(index):
                found.append(CutRequest(node, dim, tuple(index.tolist())))
        return found

    def _no_cut(self) -> CutResult:
        graph = self.graph
        return CutResult(
            params_before=graph.params(),
            flops_before=graph.flops(),
            flops_after=graph.flops(),
            macs_before=graph.macs(),
            macs_after=graph.macs(),
            inputs=tuple(graph.spec(name) for name in graph.inputs),
            outputs=tuple(graph.spec(name) for name in graph.outputs),
        )


def ask(report: Progress, stage: str, done: float) -> None:
    """Tell how far it is; raises ``PlanCancelledError`` where the answer is ``False``."""
    if report(stage, done) is False:
        raise PlanCancelledError(f"cancelled while {stage}; nothing was changed", stage=stage)


def checked_graph(graph: Any) -> SolvedGraph:
    """Return the solved graph of an ``ONNXGraph``, or the solved graph that was given."""
    solved = getattr(graph, "solved", graph)
    if not isinstance(solved, SolvedGraph):
        raise PlanError(
            "a plan is made for an ONNXGraph after build_graph(inputs), or for a SolvedGraph, not "
            f"for {type(graph).__name__}",
            received=type(graph).__name__,
        )
    return solved


def checked_budget(budget: Any) -> Budget:
    """Return ``budget``; raises ``BudgetError`` for anything but a ``Budget``."""
    if isinstance(budget, Budget):
        return budget
    raise BudgetError(
        f"a budget is tp.Budget(flops='50%'), not {budget!r:.60}", received=repr(budget)[:60]
    )
