"""A plan meets its budget, is exact, obeys the rules, and says what it did and why."""

from __future__ import annotations

import copy
import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch

import torchpruner_core as tp
from tests.core.planning.nets import (
    IMAGE,
    TOKENS,
    Chunked,
    Grouped,
    GroupedQuery,
    Residual,
    graph_of,
    random_scores,
)
from torchpruner_core.planning.errors import (
    BudgetError,
    NothingToPruneError,
    PlanCancelledError,
    RuleError,
    ScoresError,
)


@pytest.fixture(scope="module")
def residual():
    torch.manual_seed(0)
    model = Residual().eval()
    return model, graph_of(model, IMAGE)


def group_at(plan, node, dim=0):
    return next(g for g in plan.groups if (node, dim) in g.members)


@pytest.mark.parametrize("scope", ["global", "local", "isomorphic", "uniform"])
@pytest.mark.parametrize("share", [0.75, 0.5, 0.25])
@pytest.mark.parametrize("multiple", [1, 4])
def test_a_plan_is_never_above_its_budget_and_exact(residual, scope, share, multiple):
    _, graph = residual
    scores = None if scope == "uniform" else random_scores(graph)
    options = {} if scope == "uniform" else {"scope": scope}

    plan = tp.plan(graph, tp.Budget(flops=share), scores, round_to=multiple, **options)

    assert plan.result.flops_after <= share * graph.solved.flops()
    assert plan.costs["flops"].after == plan.result.flops_after
    assert plan.costs["params"].after == plan.result.params_after
    after = graph.solved.derive(plan.result)
    assert (after.flops(), after.params()) == (
        plan.result.flops_after,
        plan.result.params_after,
    )
    for group in plan.groups:
        if group.touched:
            assert group.after % multiple == 0 and group.after >= 1


@pytest.mark.parametrize(("make", "inputs"), [(Residual, IMAGE), (GroupedQuery, TOKENS)])
def test_slices_go_in_the_order_that_the_plan_tells(make, inputs):
    torch.manual_seed(0)
    graph = graph_of(make().eval(), inputs)
    plan = tp.plan(graph, tp.Budget(flops="50%"), random_scores(graph))

    orders = {axis: order.index for order in plan.orders() for axis in order.axes}

    assert set(orders) == {axis for g in plan.groups for axis in g.members if g.least < g.before}
    told = 0
    for node, axes in plan.result.terminal.items():
        for dim, gone in enumerate(axes):
            if gone is not None:
                told += 1
                order = orders[node, dim].tolist()
                assert sorted(order[: len(gone)]) == gone.tolist()
                assert sorted(order) == list(range(graph.nodes[node].shape[dim]))
    assert told
    with pytest.raises(tp.errors.PlanError, match="make it again"):
        tp.Plan.from_dict(plan.to_dict()).orders()


@pytest.mark.parametrize("share", [0.75, 0.5, 0.25])
def test_a_plan_lands_near_its_budget_where_single_slices_may_go(residual, share):
    _, graph = residual

    plan = tp.plan(graph, tp.Budget(flops=share), random_scores(graph))

    assert plan.result.flops_after >= 0.98 * share * graph.solved.flops()


def test_the_planned_cut_equals_the_masked_original(residual):
    model, graph = residual
    plan = tp.plan(graph, tp.Budget(flops="50%"), random_scores(graph))

    assert tp.verify_cut(copy.deepcopy(model), plan.result, (torch.randn(1, 3, 8, 8),)).equal


def test_a_solved_graph_gives_the_same_plan_as_the_graph_it_came_from(residual):
    _, graph = residual
    scores = random_scores(graph)

    a = tp.plan(graph, tp.Budget(flops="50%"), scores)
    b = tp.plan(tp.SolvedGraph.from_bytes(graph.solved.to_bytes()), tp.Budget(flops="50%"), scores)

    assert a.to_dict() == b.to_dict()


def test_all_of_several_budgets_hold(residual):
    _, graph = residual
    budget = tp.Budget(flops="60%", params="50%", bytes="55%", memory="70%")

    plan = tp.plan(graph, budget, random_scores(graph))

    for name in budget.amounts:
        cost = plan.costs[name]
        assert cost.after <= cost.limit, name
    assert any(plan.costs[name].after > 0.97 * plan.costs[name].limit for name in budget.amounts)


@pytest.mark.parametrize("name", ["params", "bytes", "memory", "macs"])
def test_each_cost_can_be_the_only_budget(residual, name):
    _, graph = residual

    plan = tp.plan(graph, tp.Budget(**{name: "50%"}), random_scores(graph))

    assert 0.85 * plan.costs[name].limit < plan.costs[name].after <= plan.costs[name].limit


def test_peak_memory_counts_what_is_alive_at_once():
    graph = graph_of(Residual(stream=16), IMAGE)

    plan = tp.plan(graph, tp.Budget(flops="100%"))

    # While the stream and the side branch, 16 and 20 channels, are copied into one of 36.
    assert plan.costs["memory"].before == 2 * (16 + 20) * 8 * 8 * 4


def test_the_slices_with_the_lowest_scores_go(residual):
    _, graph = residual
    scores = random_scores(graph)

    plan = tp.plan(graph, tp.Budget(flops="50%"), scores)

    axis = ("self.conv1.weight", 0)
    gone = plan.result.terminal[axis[0]][0]
    kept = np.setdiff1d(np.arange(24), gone)
    assert len(gone) and scores[axis][gone].max() < scores[axis][kept].min()


def test_scores_of_all_members_count_by_the_rule_that_was_asked(residual):
    _, graph = residual
    first = np.array([3.0] + [1.0] * 23)
    second = np.array([0.0] + [1.5] * 23)
    scores = {("self.conv1.weight", 0): first, ("self.conv2.weight", 1): second}
    gone = {}
    for rule in ("mean", "sum", "max"):
        plan = tp.plan(graph, tp.Budget(params="97%"), scores, aggregate=rule)
        gone[rule] = plan.result.terminal["self.conv1.weight"][0].tolist()

    assert 0 not in gone["max"]  # 3.0 against 1.5
    assert all(0 not in gone[rule] or 1.5 < 1.25 for rule in ("max",))
    assert 0 not in gone["mean"] or 1.5 > 1.25


def test_a_layer_without_scores_is_not_touched_and_says_so(residual):
    _, graph = residual
    scores = {("self.conv1.weight", 0): np.arange(24.0)}

    plan = tp.plan(graph, tp.Budget(flops="80%"), scores)

    assert [g.node for g in plan.groups if g.touched] == ["self.conv1.weight"]
    assert "no scores" in group_at(plan, "self.side.weight").reason


def test_every_group_is_cut_or_has_a_reason(residual):
    _, graph = residual

    plan = tp.plan(graph, tp.Budget(flops="90%"), random_scores(graph), protect=["self.side"])

    listed = Counter(axis for group in plan.groups for axis in group.members)
    fixed = {(node, dim) for node, dim, _ in plan.fixed}
    for name, node in graph.solved.nodes.items():
        if node.kind in ("parameter", "buffer"):
            for dim, size in enumerate(node.shape):
                assert listed[name, dim] or (name, dim) in fixed or size == 1
    for group in plan.groups:
        assert bool(group.reason) != bool(group.bound)
    assert group_at(plan, "self.fc.weight").reason.startswith("it reaches the model's output")
    assert "protected by self.side" in group_at(plan, "self.side.weight").reason


@pytest.mark.parametrize(
    "selector",
    ["self.conv1", "conv1", "self.conv1.weight", "*conv1*", ("self.conv1.weight", 0)],
)
def test_what_is_protected_stays(residual, selector):
    _, graph = residual

    plan = tp.plan(graph, tp.Budget(flops="90%"), random_scores(graph), protect=[selector])

    assert ("self.conv1.weight", 0) not in plan.widths


def test_a_type_is_protected_by_its_name_and_by_its_class(residual):
    _, graph = residual
    for kind in ("Conv2d", torch.nn.Conv2d):
        with pytest.raises(NothingToPruneError, match="protected by Conv2d"):
            tp.plan(graph, tp.Budget(flops="50%"), protect=[kind])


def test_max_cut_is_a_clamp(residual):
    _, graph = residual

    plan = tp.plan(
        graph, tp.Budget(flops="55%"), random_scores(graph), max_cut={"self.conv1": 0.25, "*": 0.5}
    )

    assert group_at(plan, "self.conv1.weight").after >= 18
    assert all(g.after >= g.before / 2 for g in plan.groups)


def test_min_keep_counts_slices(residual):
    _, graph = residual

    plan = tp.plan(graph, tp.Budget(flops="40%"), random_scores(graph), min_keep=10)

    assert min(g.after for g in plan.groups if g.touched) >= 10


def test_round_to_may_differ_by_type(residual):
    _, graph = residual

    plan = tp.plan(
        graph, tp.Budget(flops="50%"), random_scores(graph), round_to={"Conv2d": 4, "self.side": 10}
    )

    assert all(g.after % 4 == 0 for g in plan.groups if g.touched)
    assert group_at(plan, "self.side.weight").after == 20


def test_key_value_heads_go_with_their_query_heads():
    graph = graph_of(GroupedQuery(), TOKENS)

    plan = tp.plan(graph, tp.Budget(params="75%"), random_scores(graph), protect=["up", "down"])

    assert plan.widths["self.k.weight", 0] == (16, 8)
    assert plan.widths["self.q.weight", 0] == (32, 16)
    assert plan.widths["self.o.weight", 1] == (32, 16)
    cut = plan.result.terminal["self.k.weight"][0]
    assert cut.tolist() in ([*range(8)], [*range(8, 16)])


def test_head_dimensions_go_only_when_asked():
    graph = graph_of(GroupedQuery(), TOKENS)
    asked = {"self.q": "inner"}

    plan = tp.plan(
        graph, tp.Budget(params="85%"), random_scores(graph), protect=["up", "down"],
        granularity=asked,
    )  # fmt: skip

    before, after = plan.widths["self.q.weight", 0]
    assert before == 32 and after % 4 == 0 and after not in (8, 16, 24)


def test_groups_of_a_grouped_convolution_go_whole():
    graph = graph_of(Grouped(), IMAGE)

    plan = tp.plan(graph, tp.Budget(flops="60%"), random_scores(graph))

    _, left = plan.widths["self.grouped.weight", 0]
    assert left in (4, 8, 12) and plan.result.operator["self.grouped.Conv"]["group"] >= 1
    assert plan.widths["self.before.weight", 0] == (16, left)


@pytest.mark.parametrize("share", [0.8, 0.5, 0.3])
def test_equal_parts_of_a_split_stay_equal(share):
    model = Chunked().eval()
    graph = graph_of(model, IMAGE)

    plan = tp.plan(graph, tp.Budget(flops=share), random_scores(graph))

    cut = plan.result.terminal["self.first.weight"][0]
    assert np.count_nonzero(cut < 8) == np.count_nonzero(cut >= 8) > 0
    assert tp.verify_cut(model, plan.result, (torch.randn(1, 3, 8, 8),)).equal


def test_isomorphic_groups_are_ranked_together():
    widths = Residual(stream=16, inner=20, side=20)
    graph = graph_of(widths, IMAGE)
    scores = random_scores(graph)
    plan = tp.plan(graph, tp.Budget(flops="50%"), scores, scope="local")
    ratios = {g.after / g.before for g in plan.groups if g.touched}

    assert max(ratios) - min(ratios) < 0.12  # a local plan cuts every group by the same ratio


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_by_default_no_layer_is_emptied_for_what_others_keep(residual, share):
    _, graph = residual

    plan = tp.plan(graph, tp.Budget(flops=share), random_scores(graph))

    kept = [g.after / g.before for g in plan.groups if g.reason is None]
    assert len(kept) == 4 and min(kept) > 0.8 * share**0.5 and max(kept) < 1


@pytest.mark.parametrize("scope", ["local", "isomorphic", "uniform"])
def test_layers_below_the_peak_of_memory_stay(scope):
    wide_then_narrow = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1),
        torch.nn.Conv2d(32, 32, 3, padding=1, stride=4),
        torch.nn.Conv2d(32, 32, 3, padding=1),
        torch.nn.Conv2d(32, 4, 1),
    )
    graph = graph_of(wide_then_narrow, (torch.zeros(1, 3, 32, 32),))
    scores = None if scope == "uniform" else random_scores(graph)
    options = {} if scope == "uniform" else {"scope": scope}

    plan = tp.plan(graph, tp.Budget(memory="60%"), scores, **options)

    assert 0.95 * 0.6 < plan.costs["memory"].share <= 0.6
    assert group_at(plan, "self.0.weight").after < 20
    for name in ("self.1.weight", "self.2.weight"):
        assert group_at(plan, name).after >= 31


def test_a_frontier_reuses_the_plan_and_meets_every_point(residual):
    _, graph = residual
    plan = tp.plan(graph, tp.Budget(flops="50%"), random_scores(graph))

    points = plan.frontier([0.75, 0.5, 0.25])

    shares = [point.costs["flops"].share for point in points]
    assert all(share <= asked for share, asked in zip(shares, (0.75, 0.5, 0.25), strict=True))
    assert shares == sorted(shares, reverse=True)
    assert points[1].result == plan.result
    kept = [sum(g.score_after or 0 for g in point.groups) for point in points]
    assert kept == sorted(kept, reverse=True)


def test_steps_end_exactly_on_the_budget_and_keep_the_limits_of_the_whole(residual):
    _, graph = residual
    whole = tp.plan(graph, tp.Budget(flops="40%"), random_scores(graph), max_cut=0.5)
    solved = graph.solved
    costs = []
    for step in whole.steps(3):
        plan = step.plan(solved, random_scores(solved, step.number))
        solved = solved.derive(plan.result)
        costs.append(solved.flops())

    assert costs == sorted(costs, reverse=True) and len(set(costs)) == 3
    assert costs[-1] <= whole.costs["flops"].limit
    assert costs[-1] > 0.95 * whole.costs["flops"].limit
    for name, dim in (("self.conv1.weight", 0), ("self.side.weight", 0)):
        assert solved.nodes[name].shape[dim] >= graph.solved.nodes[name].shape[dim] / 2


def test_steps_prune_a_model_in_training_with_its_optimizer(residual):
    model = copy.deepcopy(residual[0])
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    graph = graph_of(model, IMAGE)
    whole = tp.plan(graph, tp.Budget(flops="50%"), tp.importance.magnitude(model, graph))

    for step in whole.steps(2):
        graph = graph_of(model, IMAGE)
        plan = step.plan(graph, tp.importance.magnitude(model, graph))
        model, _ = tp.set_cut(model, plan.result)
        tp.set_cut_optimizer(model, optimizer, plan.result)

    assert graph_of(model, IMAGE).solved.flops() == plan.result.flops_after
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()


def test_a_plan_explains_a_module(residual):
    _, graph = residual
    plan = tp.plan(graph, tp.Budget(flops="50%"), random_scores(graph))

    told = plan.why("conv1")

    assert told.groups and "self.conv1.weight" in str(told)
    group = group_at(plan, "self.conv1.weight")
    assert "one more step would save" in str(told)
    smaller = graph.solved.derive(plan.result)
    extra = int(group.before - group.after)
    assert group.saved > 0 and extra > 0
    # What one more slice would save is what the graph says once it is cut too.
    node, dim = group.node, group.dim
    one = smaller.cut_analysis(node, [0], dim)
    assert one.flops_before - one.flops_after == group.next_saves
    with pytest.raises(tp.errors.UnknownModuleError, match="did you mean"):
        plan.why("self.convv1")


def test_a_plan_prints_as_a_table(residual):
    _, graph = residual
    text = str(tp.plan(graph, tp.Budget(flops="50%"), round_to=8, protect=["self.fc"]))

    assert "self.conv1" in text and "24 -> " in text and "bound by" in text
    assert "protected by self.fc" in text


def test_plans_are_deterministic(residual):
    _, graph = residual
    made = [
        json.dumps(tp.plan(graph, tp.Budget(flops="37%"), random_scores(graph)).to_dict())
        for _ in range(3)
    ]

    assert len(set(made)) == 1


def test_a_budget_of_everything_cuts_nothing(residual):
    _, graph = residual

    plan = tp.plan(graph, tp.Budget(flops="100%"), random_scores(graph))

    assert not plan.result.terminal and plan.result.flops_after == graph.solved.flops()


def test_a_bare_number_that_was_meant_as_a_share_is_told(residual):
    _, graph = residual
    with pytest.raises(tp.InfeasibleBudgetError, match="For a share of it write '50%'"):
        tp.plan(graph, tp.Budget(flops="50"), random_scores(graph))


def test_a_budget_that_cannot_be_met_names_the_nearest(residual):
    _, graph = residual

    with pytest.raises(tp.InfeasibleBudgetError) as caught:
        tp.plan(graph, tp.Budget(flops="5%"), random_scores(graph), max_cut=0.5)

    nearest = caught.value.fields["nearest"]
    assert caught.value.fields["blocked_by"]
    plan = tp.plan(graph, tp.Budget(flops=int(nearest)), random_scores(graph), max_cut=0.5)
    assert plan.result.flops_after == nearest


@pytest.mark.parametrize(
    "amount", ["0%", 0, -1, "120%", 1.5, "5 apples", "", "nan%", float("nan"), True, [1], "-3G"]
)
def test_a_budget_that_means_nothing_is_refused(amount):
    with pytest.raises(BudgetError) as caught:
        tp.Budget(flops=amount)
    assert "flops" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "number"),
    [("2 GFLOPs", 2e9), ("2g", 2e9), ("1.5M", 1.5e6), ("3e6", 3e6), (10_000, 10_000)],
)
def test_amounts_have_units(text, number):
    assert tp.Budget(flops=text).limits({"flops": 1e12}) == {"flops": number}


def test_a_latency_needs_a_unit_and_a_runtime():
    with pytest.raises(BudgetError, match="runtime"):
        tp.Budget(latency="50%")
    with pytest.raises(BudgetError, match="unit of time"):
        tp.Budget(latency=5, runtime=tp.OnnxRuntime())
    with pytest.raises(BudgetError, match="at least one"):
        tp.Budget()


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({("self.nope.weight", 0): [1.0]}, "no such tensor"),
        ({("self.conv1.weight", 0): [1.0]}, "has 24 slices"),
        ({("self.conv1.weight", 2): [1.0] * 3}, "cannot be pruned"),
        ({("self.conv1.weight", 7): [1.0]}, "whose shape is"),
        ({}, "empty"),
        ({("self.fc.weight", 0): [1.0] * 5}, "no group that can be cut"),
    ],
)
def test_scores_that_do_not_fit_are_named(residual, scores, said):
    with pytest.raises(ScoresError, match=said):
        tp.plan(residual[1], tp.Budget(flops="50%"), scores)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"round_to": 0}, "whole number"),
        ({"round_to": 2.5}, "whole number"),
        ({"round_to": 4096}, "larger than the widest axis"),
        ({"round_to": {"self.side": 64}}, "larger than the widest axis"),
        ({"max_cut": 0}, "above 0"),
        ({"max_cut": 1.5}, "at most 1"),
        ({"min_keep": -1}, "whole number"),
        ({"scope": "planetary"}, "scope is one of"),
        ({"granularity": "strict"}, "granularity is one of"),
        ({"granularity": {"self.conv9": "inner"}}, "did you mean"),
        ({"aggregate": "median"}, "aggregate is one of"),
        ({"protect": ["self.conv9"]}, "did you mean"),
        ({"protect": [3]}, "rules name"),
        ({"protect": [("self.conv1.weight", 9)]}, "no such"),
        ({"roundto": 8}, "did you mean round_to"),
    ],
)
def test_rules_that_mean_nothing_are_refused(residual, options, said):
    with pytest.raises(RuleError, match=said):
        tp.plan(residual[1], tp.Budget(flops="50%"), **options)


def test_nothing_left_to_prune_says_why(residual):
    with pytest.raises(NothingToPruneError, match="protected by"):
        tp.plan(residual[1], tp.Budget(flops="50%"), protect=["*"])


@pytest.mark.parametrize("graph", [None, "model.onnx", torch.nn.Linear(2, 2)])
def test_a_plan_needs_a_graph(graph):
    with pytest.raises(tp.TorchPrunerError, match="ONNXGraph"):
        tp.plan(graph, tp.Budget(flops="50%"))


def test_a_plan_needs_a_budget(residual):
    with pytest.raises(BudgetError):
        tp.plan(residual[1], "50%")


def test_progress_is_told_and_cancels(residual):
    _, graph = residual
    told = []
    tp.plan(graph, tp.Budget(flops="50%"), progress=lambda stage, done: told.append((stage, done)))
    assert told[-1] == ("done", 1.0) and len(told) > 2

    for stop in range(len(told)):
        count = itertools.count()
        with pytest.raises(PlanCancelledError):
            tp.plan(
                graph,
                tp.Budget(flops="50%"),
                progress=lambda stage, done, count=count, stop=stop: next(count) < stop,
            )


def test_a_model_without_flops_can_be_planned_on_for_parameters():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(8)
            self.scale = torch.nn.Parameter(torch.ones(8))

        def forward(self, x):
            return (self.norm(x) * self.scale).mean(1, keepdim=True)

    graph = graph_of(Scaled(), (torch.zeros(2, 8),))

    # Everything reaches the input here: that is said, and nothing divides by zero.
    with pytest.raises(NothingToPruneError, match="reaches the model's input"):
        tp.plan(graph, tp.Budget(flops="50%"))


def test_a_group_that_costs_parameters_and_no_flops_is_not_free():
    class Gated(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(8, 32)
            self.b = torch.nn.Linear(32, 4)
            self.gate = torch.nn.Parameter(torch.ones(16, 4))

        def forward(self, x):
            return self.b(torch.relu(self.a(x))) * self.gate.mean(0)

    graph = graph_of(Gated(), (torch.zeros(1, 8),))
    scores = random_scores(graph) | {("self.gate", 0): 1 + np.arange(16.0)}
    solved = graph.solved
    if solved.coupling.class_frozen[solved.classes_of("self.gate")[0]]:
        scores.pop(("self.gate", 0))

    plan = tp.plan(graph, tp.Budget(flops="90%", params="90%"), scores)

    assert plan.costs["params"].after <= plan.costs["params"].limit
    assert all(group.after > 1 for group in plan.groups if group.touched)
