"""Plans go to files and come back; pruned models load with them; another model's plan is refused."""

from __future__ import annotations

import copy
import json

import pytest
import torch

import torchpruner_core as tp
from tests.core.planning.nets import IMAGE, Residual, graph_of, random_scores
from torchpruner_core.errors import PlanError
from torchpruner_core.planning.errors import PlanMismatchError


@pytest.fixture(scope="module")
def residual():
    torch.manual_seed(0)
    model = Residual().eval()
    return model, graph_of(model, IMAGE)


@pytest.fixture(scope="module")
def plan(residual):
    return tp.plan(residual[1], tp.Budget(flops="50%"), random_scores(residual[1]), protect=["fc"])


def test_a_plan_survives_a_file(plan, tmp_path):
    path = plan.save(tmp_path / "plan.json")

    back = tp.Plan.load(path)

    assert back.to_dict() == plan.to_dict()
    assert back.result == plan.result and str(back) == str(plan)
    assert str(back.why("conv1")) == str(plan.why("conv1"))
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_a_plan_read_with_its_graph_makes_a_frontier(residual, plan, tmp_path):
    path = plan.save(tmp_path / "plan.json")

    points = tp.Plan.load(path, residual[1]).frontier([0.75, 0.5])

    assert [point.costs["flops"].share <= s for point, s in zip(points, (0.75, 0.5), strict=True)]
    with pytest.raises(PlanError, match="without its graph"):
        tp.Plan.load(path).frontier([0.5])


def test_a_plan_of_another_model_is_refused_by_name(plan, tmp_path):
    path = plan.save(tmp_path / "plan.json")
    other = graph_of(Residual(inner=28), IMAGE)

    with pytest.raises(PlanMismatchError, match=r"self.conv1.weight of the shape \[24"):
        tp.Plan.load(path, other)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 99, "result": {}}', "not json"])
def test_a_file_that_is_no_plan_is_refused(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)

    with pytest.raises(PlanError):
        tp.Plan.load(path)


def test_a_damaged_plan_is_refused(plan, tmp_path):
    for key in ("budget", "rules", "costs", "groups", "fixed"):
        data = plan.to_dict()
        data[key] = 3
        with pytest.raises(PlanError):
            tp.Plan.from_dict(data)


@pytest.mark.parametrize("form", ["plan", "cut", "dict", "file", "list"])
@pytest.mark.parametrize("weights", ["tensors", "safetensors", "pt"])
def test_a_pruned_model_is_loaded_on_a_fresh_one(residual, plan, tmp_path, form, weights):
    model, _ = tp.set_cut(copy.deepcopy(residual[0]), plan.result)
    x = torch.randn(1, 3, 8, 8)
    expected = model(x)
    given = {
        "plan": plan,
        "cut": plan.result,
        "dict": json.loads(json.dumps(plan.to_dict())),
        "file": plan.save(tmp_path / "plan.json"),
        "list": [plan],
    }[form]
    state = model.state_dict()
    if weights == "safetensors":
        from safetensors.torch import save_file

        save_file(state, tmp_path / "weights.safetensors")
        state = tmp_path / "weights.safetensors"
    elif weights == "pt":
        torch.save(state, tmp_path / "weights.pt")
        state = tmp_path / "weights.pt"

    loaded = tp.load_pruned(Residual().eval(), given, state)

    assert torch.equal(loaded(x), expected)


def test_a_model_that_does_not_fit_is_refused_and_left_alone(plan):
    model = Residual(inner=28)
    before = copy.deepcopy(model.state_dict())

    with pytest.raises(PlanMismatchError, match="was made for self"):
        tp.load_pruned(model, plan)

    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_that_do_not_fit_leave_the_model_as_it_was(residual, plan):
    model = Residual()
    before = copy.deepcopy(model.state_dict())

    for state in (residual[0].state_dict(), {"fc.weight": torch.zeros(5, 32)}):
        with pytest.raises(PlanMismatchError):
            tp.load_pruned(model, plan, state)
        after = model.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_plans_made_in_steps_are_loaded_in_order(residual):
    model = copy.deepcopy(residual[0])
    graph = residual[1].solved
    whole = tp.plan(graph, tp.Budget(flops="40%"), random_scores(graph))
    plans = []
    for step in whole.steps(2):
        plans.append(step.plan(graph, random_scores(graph)))
        tp.set_cut(model, plans[-1].result)
        graph = graph.derive(plans[-1].result)

    loaded = tp.load_pruned(Residual(), plans, model.state_dict()).eval()

    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(loaded(x), model(x))


def test_a_hugging_face_model_is_saved_with_its_plan(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=80, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    ids = torch.arange(7)[None]
    graph = graph_of(model, (ids,))
    scores = tp.importance.magnitude(model, graph)
    plan = tp.plan(graph, tp.Budget(params="80%"), scores, protect=["lm_head"])
    tp.set_cut(model, plan.result)
    expected = model(ids).logits

    tp.save_pretrained(model, tmp_path, plan)
    loaded = tp.load_pretrained(LlamaForCausalLM, tmp_path)

    assert torch.equal(loaded(ids).logits, expected)
    with pytest.raises(PlanError, match="no plan"):
        tp.load_pretrained(LlamaForCausalLM, tmp_path / "elsewhere")
