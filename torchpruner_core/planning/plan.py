"""A plan: the joint cut, and for each group how wide it was and is, what bound it, and why.

Plain data: it prints as a table, goes to a file without pickle, and comes back without a graph.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torchpruner_core.analysis.graph_data import GraphData
from torchpruner_core.analysis.requests import near_names
from torchpruner_core.cut_result import CutResult
from torchpruner_core.errors import PlanError, UnknownModuleError
from torchpruner_core.planning.budget import Budget
from torchpruner_core.planning.errors import PlanMismatchError, RuleError
from torchpruner_core.planning.explaining import describe_groups
from torchpruner_core.planning.latency_budget import plan_latency
from torchpruner_core.planning.planner import (
    Planner,
    Progress,
    ask,
    checked_budget,
    checked_graph,
)
from torchpruner_core.planning.records import Cost, Explanation, LatencyRound, PlannedGroup
from torchpruner_core.planning.rules import Rules
from torchpruner_core.planning.scores import Scores
from torchpruner_core.planning.slice_order import SliceOrder, slice_orders
from torchpruner_core.planning.table import as_table

FORMAT = 1
"""Changes when a plan stored by an older version can no longer be read."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Which slices go so that a model costs no more than a budget.

    ``result`` is a ``CutResult`` like any other, for ``set_cut``, ``prune_onnx``, ``derive`` and the service.
    ``costs`` are exact, by name; ``groups`` holds every group of the model, cut or not; ``fixed`` the axes
    that no rule can shorten, as ``(node, dim, reason)``. ``rounds`` are the measurements of a latency
    budget. ``fingerprint`` tells the model by its tensors' names and shapes.
    """

    budget: Budget
    rules: Rules
    result: CutResult
    costs: dict[str, Cost]
    groups: tuple[PlannedGroup, ...]
    fixed: tuple[tuple[str, int, str], ...]
    fingerprint: str
    scores: str = ""
    rounds: tuple[LatencyRound, ...] = ()
    planner: Planner | None = field(default=None, repr=False)
    graph: Any = field(default=None, repr=False)

    @property
    def unit(self) -> str:
        """The name of the first limit, in whose unit the groups' costs are."""
        return next((n for n in self.budget.amounts if n != "latency"), "flops")

    @property
    def widths(self) -> dict[tuple[str, int], tuple[int, int]]:
        """The width before and after of each axis that is cut, by ``(node, dim)``."""
        shapes = self.result.shapes
        return {
            (node, dim): (shapes[node][dim], shapes[node][dim] - len(cut))
            for node, axes in self.result.terminal.items()
            for dim, cut in enumerate(axes)
            if cut is not None
        }

    def why(self, name: str) -> Explanation:
        """Return why a module, or one of its tensors, is as wide as it is; print it.

        Raises ``UnknownModuleError`` where the plan knows of no such module.
        """
        for root in (name, f"self.{name}"):
            below = f"{root}."
            found = tuple(
                group
                for group in self.groups
                if any(node == root or node.startswith(below) for node, _ in group.members)
            )
            fixed = tuple(
                axis for axis in self.fixed if axis[0] == root or axis[0].startswith(below)
            )
            if found or fixed:
                return Explanation(root, found, fixed, self.unit)
        known = {node.rpartition(".")[0] for group in self.groups for node, _ in group.members}
        raise UnknownModuleError(
            f"the plan knows of no module called {name!r} that has a parameter"
            f"{near_names(name, known)}",
            module=str(name),
        )

    def frontier(self, fractions: Iterable[float]) -> list[Plan]:
        """Return a plan for each share of the model's cost, in what this plan's budget limits.

        Everything but the choice of widths is reused. Raises ``InfeasibleBudgetError`` where one
        cannot be met, and ``PlanError`` for a plan that was read from a file without its graph.
        """
        if self.planner is None:
            raise PlanError(
                "this plan was read without its graph: Plan.load(path, graph), or make a new one"
            )
        budgets = [self.budget.scaled(share) for share in fractions]
        nothing: Progress = lambda stage, done: None  # noqa: E731
        return [make_plan(self.planner, budget, self.graph, nothing) for budget in budgets]

    def orders(self) -> tuple[SliceOrder, ...]:
        """Return, for each axis that the plan may shorten, its slices in the order in which they go.

        Raises ``PlanError`` for a plan that was read from a file: the scores are not in it.
        """
        if self.planner is None:
            raise PlanError(
                "this plan was read from a file, which holds no scores; make it again with them"
            )
        return slice_orders(self.planner)

    def steps(self, count: int) -> list[Step]:
        """Return a schedule of ``count`` budgets that ends exactly on this plan's.

        Each step leaves the same share of the one before (Zhu and Gupta 2017 and Frankle and Carbin
        2019 prune so). ``step.plan(graph, scores)`` plans on the graph of the model as it is then,
        with scores taken anew.
        """
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise RuleError(f"a schedule has a whole number of steps, 1 or more, not {count!r}")
        floors = {(group.node, group.dim): group.least for group in self.groups}
        rules = replace(self.rules, max_cut=1.0, min_keep=1)
        found = []
        for number in range(1, count + 1):
            amounts: dict[str, Any] = {}
            for name, cost in _shares(self).items():
                share = min(1.0, (cost.limit or cost.before) / cost.before)
                amounts[name] = int(cost.before * share ** (number / count))
                if number == count:
                    amounts[name] = int(cost.limit or cost.before)
            found.append(Step(number, count, Budget(**amounts), rules, floors))
        return found

    def check(self, graph: Any) -> None:
        """Raise ``PlanMismatchError`` where the plan was made for another model than ``graph``'s."""
        solved = checked_graph(graph)
        if fingerprint(solved) == self.fingerprint:
            return
        for name, shape in self.result.shapes.items():
            node = solved.nodes.get(name)
            if node is None:
                raise PlanMismatchError(
                    f"the plan cuts {name}, and this model has no such tensor"
                    f"{near_names(name, solved.nodes)}; load it for a model of the class it was made for",
                    node=name,
                )
            if node.shape != tuple(shape):
                raise PlanMismatchError(
                    f"the plan was made for {name} of the shape {list(shape)}, and this model has "
                    f"{list(node.shape)}: it has another size, other inputs, or was pruned already",
                    node=name,
                    expected=list(shape),
                    received=list(node.shape),
                )
        raise PlanMismatchError(
            "the plan was made for a model with other tensors; the ones it cuts are the same here, so "
            "plan.result can be used if that is meant",
            expected=self.fingerprint,
            received=fingerprint(solved),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` gives an equal plan back."""
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "budget": self.budget.to_dict(),
            "rules": self.rules.to_dict(),
            "scores": self.scores,
            "costs": {name: asdict(cost) for name, cost in self.costs.items()},
            "groups": [_sparse(group) for group in self.groups],
            "fixed": [list(axis) for axis in self.fixed],
            "rounds": [asdict(each) for each in self.rounds],
            "result": self.result.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Any, graph: Any = None) -> Plan:
        """Read :meth:`to_dict`'s value; with ``graph`` it is checked to be of the same model.

        Raises ``PlanError`` for anything else, ``PlanMismatchError`` for another model's.
        """
        if not isinstance(data, Mapping) or "format" not in data or "result" not in data:
            raise PlanError("this is no plan; plan.to_dict() and plan.save(path) write one")
        if data["format"] != FORMAT:
            raise PlanError(
                f"the plan has format {data['format']!r}, this version reads {FORMAT}; make it again",
                received=data["format"],
            )
        try:
            budget = object.__new__(Budget)  # a latency's runtime is not stored
            for each in fields(Budget):
                object.__setattr__(budget, each.name, data["budget"].get(each.name))
            plan = cls(
                budget,
                Rules.from_dict(data["rules"]),
                CutResult.from_dict(data["result"]),
                {str(name): Cost(**cost) for name, cost in data["costs"].items()},
                tuple(map(PlannedGroup.from_dict, data["groups"])),
                tuple((str(n), int(d), str(reason)) for n, d, reason in data["fixed"]),
                str(data["fingerprint"]),
                str(data.get("scores", "")),
                tuple(map(LatencyRound.from_dict, data.get("rounds", ()))),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError(f"the plan cannot be read: {error!r}; make it again") from error
        if graph is not None:
            plan.check(graph)
            planner = Planner(checked_graph(graph), None, plan.rules)
            plan = replace(plan, planner=planner, graph=graph)
        return plan

    def save(self, path: str | Path) -> Path:
        """Write the plan as JSON and return the path; a file there is replaced as a whole.

        Raises ``OSError`` where it cannot be written there.
        """
        target = Path(path)
        if not target.parent.is_dir():
            raise FileNotFoundError(
                f"{target} cannot be written: there is no folder {target.parent}"
            )
        text = json.dumps(self.to_dict(), separators=(",", ":"))
        handle, temporary = tempfile.mkstemp(dir=target.parent or ".", prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return target

    @classmethod
    def load(cls, path: str | Path, graph: Any = None) -> Plan:
        """Read :meth:`save`'s file; with ``graph`` it is checked to be of the same model.

        A plan read so can be cut, explained and stepped; with its graph it can also make a
        frontier, by equal ratios, as the scores are not in the file.

        Raises ``PlanError`` where the file is no plan, ``OSError`` where it cannot be read.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise PlanError(f"{path} is no plan: {error}", path=str(path)) from error
        return cls.from_dict(data, graph)

    def __str__(self) -> str:
        return as_table(self.costs, self.groups, self.fixed, self.rounds, self.unit)

    def __repr__(self) -> str:
        costs = ", ".join(f"{name} {self.costs[name].share:.1%}" for name in ("flops", "params"))
        touched = sum(group.touched for group in self.groups)
        return f"Plan({costs}; {touched} of {len(self.groups)} groups cut)"


def _sparse(group: PlannedGroup) -> dict[str, Any]:
    return {name: value for name, value in asdict(group).items() if value is not None}


def fingerprint(graph: GraphData) -> str:
    """Return a short hash of the names and shapes of a model's parameters and buffers."""
    rows = [
        [name, list(node.shape)]
        for name, node in sorted(graph.nodes.items())
        if node.kind in ("parameter", "buffer")
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]


def plan(
    graph: Any,
    budget: Budget,
    scores: Scores | Mapping[Any, Any] | None = None,
    *,
    rules: Rules | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Plan:
    """Return which slices of a model go so that it costs no more than ``budget``, and nothing above it.

    ``graph`` is an ``ONNXGraph`` or a ``SolvedGraph``. ``scores`` are numbers by slice, higher means keep
    (``tp.importance``, or ``{(node, dim): [...]}``); without them every group is cut by the same ratio, its
    last slices first. ``options`` are the rules (``round_to=8``, ``protect=["self.fc"]``, ``scope="local"``
    and the others of :class:`Rules`), or ``rules`` holds them. ``progress`` is called with a stage's name
    and the fraction done; where it returns ``False`` the plan is cancelled.

    Raises ``BudgetError``, ``ScoresError``, ``RuleError`` before any work, ``NothingToPruneError`` where no
    group is left, ``InfeasibleBudgetError`` where no plan under the rules is cheap enough,
    ``PlanCancelledError``.
    """
    solved = checked_graph(graph)
    checked_budget(budget)
    found = make_rules(rules, options)
    read = None if scores is None else Scores.read(scores)
    report = progress or (lambda stage, done: None)
    ask(report, "finding units", 0.0)
    return make_plan(Planner(solved, read, found), budget, graph, report)


def make_rules(rules: Rules | None, options: Mapping[str, Any]) -> Rules:
    """Return ``rules`` with ``options`` in their place; raises ``RuleError`` for an unknown name."""
    known = {each.name for each in fields(Rules)}
    for name in options:
        if name not in known:
            raise RuleError(
                f"a plan has no rule called {name!r}{near_names(name, known)}; the rules are "
                f"{', '.join(sorted(known))}",
                rule=name,
            )
    if rules is not None and not isinstance(rules, Rules):
        raise RuleError(f"rules are tp.Rules(...), not {rules!r:.60}")
    return replace(rules or Rules(), **options)


def make_plan(planner: Planner, budget: Budget, graph: Any, report: Progress) -> Plan:
    """Return the plan for one budget; ``graph`` is what a runtime measures."""
    before = planner.full_costs
    names = [name for name in budget.amounts if name != "latency"]
    fixed = replace(budget, latency=None, runtime=None) if names else None
    limits = fixed.limits(before) if fixed else {}
    resources = {name: planner.costs[name] for name in names}
    rounds: tuple[LatencyRound, ...] = ()
    if budget.latency is None:
        rows = planner.rows(resources, limits, report)
        cut = planner.cut(rows)
    else:

        def seconds(original: float) -> float:
            return budget.limits({**before, "latency": original})["latency"]

        session = budget.runtime.session(graph)
        measured = plan_latency(planner, session, seconds, resources, limits, report)
        rows, cut, rounds = measured.rows, measured.cut, measured.rounds
    widths = planner.choices.widths(planner.costs.widths, rows)
    costs = {
        name: Cost(before[name], planner.costs[name].value(widths), limits.get(name))
        for name in before
    }
    if rounds:
        used = next(each for each in rounds if each.flops == cut.flops_after)
        costs["latency"] = Cost(used.original.median, used.pruned.median, used.target)
    made = Plan(
        budget,
        planner.rules,
        cut,
        costs,
        describe_groups(planner, rows, planner.costs[names[0] if names else "flops"]),
        planner.units.fixed,
        fingerprint(planner.graph),
        planner.scores.name if planner.scores is not None else "",
        rounds,
        planner,
        graph,
    )
    ask(report, "done", 1.0)
    return made


@dataclass(frozen=True)
class Step:
    """One step of a schedule: number ``number`` of ``count``, with what the model may cost after it.

    ``floors`` are the widths that the whole plan's rules leave at least, so that ``max_cut`` holds for all
    steps together.
    """

    number: int
    count: int
    budget: Budget
    rules: Rules
    floors: Mapping[tuple[str, int], int]

    def plan(
        self,
        graph: Any,
        scores: Scores | Mapping[Any, Any] | None = None,
        *,
        progress: Progress | None = None,
    ) -> Plan:
        """Return this step's plan for the model as it is now; raises as :func:`plan` does."""
        solved = checked_graph(graph)
        read = None if scores is None else Scores.read(scores)
        report = progress or (lambda stage, done: None)
        ask(report, "finding units", 0.0)
        planner = Planner(solved, read, self.rules, self.floors)
        return make_plan(planner, self.budget, graph, report)


def _shares(whole: Plan) -> dict[str, Cost]:
    """Return the costs that a schedule brings down: those with a limit, or FLOPs for a latency."""
    limited = {
        name: cost
        for name, cost in whole.costs.items()
        if cost.limit is not None and name != "latency"
    }
    if limited:
        return limited
    flops = whole.costs["flops"]
    return {"flops": replace(flops, limit=flops.after)}
