"""Scores are what their papers say, for every axis that can be shortened."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchpruner_core as tp
from torchpruner_core.calibration.errors import NotFiniteError, UnscorableModelError
from torchpruner_core.planning.errors import ScoresError
from torchpruner_core.planning.scores import Scores

X = torch.rand(64, 4, generator=torch.Generator().manual_seed(1))
Y = (X.sum(1) * 1.4).long().clamp(0, 2)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


@functools.cache
def graph_of_mlp() -> Any:
    return graph_of(mlp())


def graph_of(model: nn.Module, *inputs: torch.Tensor) -> Any:
    graph = tp.ONNXGraph(model)
    graph.build_graph(inputs or (X[:2],), fill_value=False)
    return graph


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def test_magnitude_is_the_power_sum_of_each_slice() -> None:
    model = mlp()
    scores = tp.importance.magnitude(model, graph_of_mlp())
    first, second = model[0].weight.detach(), model[2].weight.detach()
    assert set(scores) >= {("self.0.weight", 0), ("self.2.weight", 1)}
    assert all("bias" not in node for node, _ in scores)
    np.testing.assert_allclose(scores["self.0.weight", 0], first.square().sum(1), rtol=1e-5)
    l1 = tp.importance.magnitude(model, graph_of_mlp(), p=1, bias=True)
    np.testing.assert_allclose(l1["self.2.weight", 1], second.abs().sum(0), rtol=1e-5)
    np.testing.assert_allclose(l1["self.0.bias", 0], model[0].bias.detach().abs(), rtol=1e-5)


def test_arrays_by_name_give_the_same_scores_as_the_model_without_torch() -> None:
    model = mlp()
    graph = graph_of_mlp()
    arrays = {f"self.{name}": p.detach().numpy() for name, p in model.named_parameters()}
    for importance in (tp.importance.magnitude, tp.importance.lamp, tp.importance.fpgm):
        assert importance(arrays, graph) == importance(model, graph)
    told = "import sys; import torchpruner_core.importance.weights; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_lamp_gives_the_strongest_slice_of_every_axis_one() -> None:
    model = mlp()
    scores = tp.importance.lamp(model, graph_of_mlp())
    square = model[0].weight.detach().square().sum(1).numpy()
    expected = [s / square[square >= s].sum() for s in square]
    np.testing.assert_allclose(scores["self.0.weight", 0], expected, rtol=1e-5)
    assert all(values.max() == pytest.approx(1) for values in scores.values.values())


def test_fpgm_is_the_sum_of_distances_and_zero_beside_twins_only() -> None:
    model = mlp()
    scores = tp.importance.fpgm(model, graph_of_mlp())
    weight = model[0].weight.detach()
    np.testing.assert_allclose(
        scores["self.0.weight", 0], torch.cdist(weight, weight).sum(1), rtol=1e-4
    )
    with torch.no_grad():
        model[0].weight.copy_(weight[:1].expand(6, 4))
    assert not tp.importance.fpgm(model, graph_of_mlp())["self.0.weight", 0].any()


def test_batchnorm_is_the_size_of_what_a_norm_scales_with() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 2, 3)
    ).eval()
    nn.init.normal_(model[1].weight)
    scores = tp.importance.batchnorm(model, graph_of(model, torch.rand(1, 3, 8, 8)))
    assert list(scores) == [("self.1.weight", 0)]
    np.testing.assert_allclose(scores["self.1.weight", 0], model[1].weight.detach().abs())
    with pytest.raises(UnscorableModelError, match="no batch norm"):
        tp.importance.batchnorm(mlp(), graph_of_mlp())


def test_random_is_the_same_for_the_same_seed() -> None:
    model = mlp()
    graph = graph_of_mlp()
    assert tp.importance.random(model, graph) == tp.importance.random(model, graph)
    assert tp.importance.random(model, graph) != tp.importance.random(model, graph, seed=1)


def test_a_measure_of_ones_own_is_checked() -> None:
    model = mlp()
    graph = graph_of_mlp()
    own = tp.importance.custom(
        model,
        graph,
        lambda w, dim, name: np.abs(w).max(1 - dim) if w.ndim == 2 else None,
        name="peak",
    )
    np.testing.assert_allclose(own["self.0.weight", 0], model[0].weight.detach().abs().amax(1))
    assert own.name == "peak"
    with pytest.raises(ScoresError):
        tp.importance.custom(model, graph, lambda w, dim, name: np.full(w.shape[dim], np.nan))


def test_taylor_is_the_change_of_the_loss_when_a_slice_goes() -> None:
    model = mlp()
    batches = [(X[:32], Y[:32]), (X[32:], Y[32:])]
    scores = tp.importance.taylor(model, graph_of_mlp(), batches, loss)
    gradient = torch.autograd.grad(loss(model, (X, Y)), model[0].weight)[0]
    expected = (gradient * model[0].weight).sum(1).abs().detach()
    np.testing.assert_allclose(scores["self.0.weight", 0], expected, rtol=1e-4, atol=1e-7)


def test_fisher_squares_each_samples_own_gradient() -> None:
    model = mlp()
    scores = tp.importance.fisher(model, graph_of_mlp(), [(X[:8], Y[:8])], loss)
    total = torch.zeros(6)
    for n in range(8):
        gradient = torch.autograd.grad(loss(model, (X[n : n + 1], Y[n : n + 1])), model[2].weight)[
            0
        ]
        total += (gradient * model[2].weight).sum(0).square().detach()
    np.testing.assert_allclose(scores["self.2.weight", 1], total / 8, rtol=1e-4, atol=1e-9)
    blurred = tp.importance.fisher(model, graph_of_mlp(), [(X[:8], Y[:8])], loss, per_sample=False)
    assert not np.allclose(blurred["self.2.weight", 1], scores["self.2.weight", 1])


def test_activation_weighs_each_weight_with_the_size_of_what_it_reads() -> None:
    model = mlp()
    scores = tp.importance.activation(model, graph_of_mlp(), X.split(16))
    hidden = torch.relu(model[0](X)).detach()
    saliency = model[2].weight.detach().abs() * hidden.square().mean(0).sqrt()
    np.testing.assert_allclose(scores["self.2.weight", 1], saliency.sum(0), rtol=1e-5)
    first = model[0].weight.detach().abs() * X.square().mean(0).sqrt()
    np.testing.assert_allclose(scores["self.0.weight", 0], first.sum(1), rtol=1e-5)


def test_fluctuation_is_the_variance_times_the_readers_norm() -> None:
    model = mlp()
    scores = tp.importance.fluctuation(model, graph_of_mlp(), X.split(16))
    hidden = torch.relu(model[0](X)).detach()
    expected = model[2].weight.detach().square().sum(0) * hidden.var(0, correction=0)
    np.testing.assert_allclose(scores["self.2.weight", 1], expected, rtol=1e-4)
    assert ("self.0.weight", 0) not in scores.values


def test_a_large_mean_does_not_drown_the_variance() -> None:
    model = mlp()
    with torch.no_grad():
        model[0].bias += 1000
    scores = tp.importance.fluctuation(model, graph_of_mlp(), X.split(16))
    hidden = model[0](X.double().float()).detach().double()
    expected = model[2].weight.detach().double().square().sum(0) * hidden.var(0, correction=0)
    np.testing.assert_allclose(scores["self.2.weight", 1], expected, rtol=0.05)


def test_groups_of_a_convolution_keep_their_own_features() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.Conv2d(8, 6, 3, groups=2), nn.Conv2d(6, 2, 1)
    ).eval()
    images = torch.rand(4, 2, 6, 6)
    scores = tp.importance.activation(model, graph_of(model, images[:1]), [images])
    hidden = model[0](images).detach()
    norm = hidden.square().mean((0, 2, 3)).sqrt()
    weight = model[1].weight.detach().abs()
    per_out = torch.stack(
        [(weight[o] * norm[4 * (o // 3) : 4 * (o // 3) + 4, None, None]).sum() for o in range(6)]
    )
    np.testing.assert_allclose(scores["self.1.weight", 0], per_out, rtol=1e-4)


def test_a_tied_weight_is_scored_once_under_the_graphs_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(20, 8)
            self.fc = nn.Linear(8, 8)
            self.head = nn.Linear(8, 20, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.fc(self.embed(ids))))

    model = Tied().eval()
    ids = torch.arange(6)[None]
    graph = graph_of(model, ids)
    tied = {"self.embed.weight", "self.head.weight"}
    for scores in (
        tp.importance.magnitude(model, graph),
        tp.importance.activation(model, graph, [(ids,)]),
        tp.importance.taylor(model, graph, [ids], lambda m, b: m(b).square().mean()),
    ):
        assert len({node for node, _ in scores} & tied) == 1


def test_weights_that_do_not_fit_the_graph_are_named() -> None:
    model = mlp()
    graph = graph_of_mlp()
    with pytest.raises(UnscorableModelError, match=r"self\.0\.weight"):
        tp.importance.magnitude(nn.Linear(4, 3), graph)
    with torch.no_grad():
        model[2].weight[0, 0] = torch.inf
    with pytest.raises(NotFiniteError, match=r"self\.2\.weight"):
        tp.importance.magnitude(model, graph)
    with pytest.raises(UnscorableModelError, match="build_graph"):
        tp.importance.magnitude(model, (X,))
    with pytest.raises(UnscorableModelError, match="meta"):
        tp.importance.magnitude(mlp().to("meta"), graph)


def test_a_hugging_face_batch_with_labels_brings_its_own_loss() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=40,
        use_cache=False,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.arange(8)[None]
    graph = tp.ONNXGraph(model)
    graph.build_graph({"input_ids": ids}, fill_value=False)
    scores = tp.importance.taylor(model, graph, [{"input_ids": ids, "labels": ids}])
    assert len(scores["self.model.layers.0.mlp.down_proj.weight", 1]) == 24
    read = tp.importance.activation(model, graph, [{"input_ids": ids}])
    assert read["self.model.layers.0.self_attn.o_proj.weight", 1].min() > 0


def test_scores_survive_json() -> None:
    model = mlp()
    scores = tp.importance.taylor(model, graph_of_mlp(), [(X, Y)], loss)
    assert Scores.from_dict(scores.to_dict()) == scores
