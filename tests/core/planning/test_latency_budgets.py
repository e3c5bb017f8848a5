"""Budgets of latency: profiled once, measured, corrected, and honest about noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import torchpruner_core as tp
from tests.core.planning.nets import IMAGE, Residual, graph_of, random_scores
from torchpruner_core.planning.errors import BudgetError, MeasurementError, PlanCancelledError
from torchpruner_core.planning.records import Timing


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return graph_of(Residual().eval(), IMAGE)


class Machine:
    """A machine whose time is a known function of what a model computes."""

    def __init__(self, graph, fixed=0.2, power=1.0, spread=0.0) -> None:
        self.graph = graph.solved
        self.fixed, self.power, self.spread = fixed, power, spread
        self.profiles = self.compared = 0

    def session(self, graph):
        return self

    def _timing(self, flops):
        share = (flops / self.graph.flops()) ** self.power
        median = 0.010 * (self.fixed + (1 - self.fixed) * share)
        return Timing(median, median - self.spread / 2, median + self.spread / 2, 9)

    def profile(self):
        self.profiles += 1
        total = self.graph.flops()
        return {op.name: op.flops / total for op in self.graph.operators.values() if op.flops}

    def compare(self, cut):
        self.compared += 1
        after = self.graph.flops() if cut is None else cut.flops_after
        return self._timing(self.graph.flops()), self._timing(after)


@pytest.mark.parametrize("power", [1.0, 0.7, 1.4])
@pytest.mark.parametrize("share", ["80%", "50%"])
def test_the_measured_time_is_at_or_under_the_target_though_the_profile_is_wrong(
    graph, power, share
):
    machine = Machine(graph, power=power)

    plan = tp.plan(graph, tp.Budget(latency=share, runtime=machine), random_scores(graph))

    cost = plan.costs["latency"]
    assert 0.9 * cost.limit <= cost.after <= cost.limit
    assert machine.profiles == 1 and machine.compared == len(plan.rounds) + 1 <= 5
    assert plan.result.flops_after == plan.costs["flops"].after


def test_an_absolute_latency_and_another_budget_hold_together(graph):
    budget = tp.Budget(latency="7 ms", params="60%", runtime=Machine(graph))

    plan = tp.plan(graph, budget, random_scores(graph))

    assert plan.costs["latency"].after <= 0.007
    assert plan.costs["params"].after <= plan.costs["params"].limit


def test_a_result_within_noise_is_called_so(graph):
    noisy = Machine(graph, spread=0.004)
    quiet = Machine(graph, spread=1e-9, power=0.7)

    told = tp.plan(graph, tp.Budget(latency="80%", runtime=noisy), random_scores(graph))
    exact = tp.plan(graph, tp.Budget(latency="80%", runtime=quiet), random_scores(graph))

    assert told.rounds[-1].within_noise and "within noise" in str(told)
    assert not exact.rounds[0].within_noise


def test_a_latency_that_nothing_reaches_names_the_nearest(graph):
    with pytest.raises(tp.InfeasibleBudgetError) as caught:
        machine = Machine(graph, fixed=0.6)
        tp.plan(graph, tp.Budget(latency="50%", runtime=machine), random_scores(graph))

    assert caught.value.fields["budget"] == "latency"
    assert 0.006 < caught.value.fields["nearest"] < 0.008


def test_a_plan_of_a_latency_goes_to_a_file_with_its_measurements(graph, tmp_path):
    plan = tp.plan(graph, tp.Budget(latency="60%", runtime=Machine(graph)), random_scores(graph))

    back = tp.Plan.load(plan.save(tmp_path / "plan.json"))

    assert back.rounds == plan.rounds and back.costs == plan.costs
    assert [step.budget.flops for step in back.steps(2)][-1] == plan.result.flops_after


def test_measuring_can_be_cancelled(graph):
    count = itertools.count()
    with pytest.raises(PlanCancelledError):
        tp.plan(
            graph,
            tp.Budget(latency="50%", runtime=Machine(graph)),
            random_scores(graph),
            progress=lambda stage, done: stage != "measuring" or next(count) < 1,
        )


@pytest.mark.parametrize("weights", [True, False], ids=["weights", "weightless"])
def test_onnxruntime_profiles_and_times_a_model(graph, weights):
    model = graph.program.with_weights() if weights else graph.program.weightless()
    runtime = tp.OnnxRuntime(runs=3, seconds=0.05, model=model)
    session = runtime.session(graph.solved)
    cut = tp.plan(graph, tp.Budget(flops="50%"), random_scores(graph)).result

    seconds = session.profile()
    original, pruned = session.compare(cut)

    operators = graph.solved.operators
    named = {name for name in seconds if name}
    assert named <= set(operators) and all(spent >= 0 for spent in seconds.values())
    multiplied = [name for name, op in operators.items() if op.flops]
    assert len(named & set(multiplied)) >= len(multiplied) - 1
    for timing in (original, pruned):
        assert 0 < timing.low <= timing.median <= timing.high and timing.runs >= 3


def test_a_solved_graph_without_a_model_cannot_be_timed(graph):
    with pytest.raises(BudgetError, match="OnnxRuntime\\(model="):
        tp.plan(graph.solved, tp.Budget(latency="50%", runtime=tp.OnnxRuntime()))


def test_a_file_that_is_no_model_cannot_be_timed(graph):
    with pytest.raises(MeasurementError, match="no ONNX model"):
        tp.OnnxRuntime(model=b"not a model").session(graph.solved)


@pytest.mark.parametrize(
    "options", [{"device": "TPU"}, {"runs": 1}, {"seconds": 0}, {"threads": -1}]
)
def test_settings_of_a_runtime_that_mean_nothing_are_refused(options):
    with pytest.raises(BudgetError):
        tp.OnnxRuntime(**options)


def test_random_weights_are_finite_and_neither_vanish(graph):
    import onnx

    from torchpruner_core.runtimes.random_weights import with_random_weights

    model = onnx.load_model_from_string(with_random_weights(graph.program.weightless()))

    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        assert values.shape == tuple(tensor.dims) and np.isfinite(values).all()
