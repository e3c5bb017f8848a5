"""State that a graph in evaluation mode never reads follows a cut, or is named."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchpruner_core as tp
from tests.core.pruning.nets import assert_same, state
from torchpruner_core.errors import StaleStateWarning


class Auxiliary(nn.Module):
    """A second head that runs in training only, with a norm that needs two images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 4)
        self.aux = nn.Sequential(nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(5))
        self.grouped = nn.Conv2d(8, 8, 1, groups=8)

    def forward(self, x: torch.Tensor) -> Any:
        x = F.relu(self.stem(x))
        y = self.head(x.mean((2, 3)))
        if self.training:
            return y, self.aux(x).flatten(1), self.grouped(x)
        return y


class Codebook(nn.Module):
    """Buffers that a training step updates in place."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("average", torch.zeros(8))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.into(x)
        if self.training:
            self.average.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
            h = h - self.average
        return self.out(h)


class MaskToken(nn.Module):
    """A parameter that only another argument reads."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(6, 12), nn.Linear(12, 3)
        self.token = nn.Parameter(torch.zeros(1, 1, 12))
        self.unrelated = nn.Parameter(torch.zeros(1, 1, 7))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        h = self.into(x)
        if mask is not None:
            h = torch.where(mask[..., None], self.token, h)
        return self.out(h)


def built(model: nn.Module, x: torch.Tensor) -> tp.ONNXGraph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StaleStateWarning)
        return tp.ONNXGraph(model).build_graph((x,), fill_value=False)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        found = model(x)
        loss = sum(y.square().sum() for y in found) if isinstance(found, tuple) else found.sum()
        loss.backward()
        optimizer.step()
    return loss


class TestFollowed:
    @pytest.mark.filterwarnings("error::torchpruner_core.errors.StaleStateWarning")
    def test_an_auxiliary_head_is_cut_along_and_comes_back_with_its_optimizer(self) -> None:
        model, x = Auxiliary(), torch.randn(4, 3, 6, 6)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        held = [steps(model, optimizer, x)]
        result = built(model.eval(), x[:1]).nodes["self.stem.weight"].cut_analysis([0, 3], 0)
        remembered = tp.CutResult.from_json(result.to_json())
        before = state(model)
        momentum = {k: v["momentum_buffer"].clone() for k, v in optimizer.state.items()}
        _, context = tp.set_cut(model, remembered)
        _, states = tp.set_cut_optimizer(model, optimizer, remembered)
        assert model.aux[0].weight.shape == (5, 6, 1, 1) and model.aux[0].in_channels == 6
        assert (model.grouped.groups, model.grouped.weight.shape[0]) == (6, 6)
        tp.recovery_cut(model, remembered, context)
        tp.recovery_optimizer(model, optimizer, remembered, states)
        assert_same(before, state(model))
        for parameter, values in momentum.items():
            assert torch.equal(optimizer.state[parameter]["momentum_buffer"], values)
        _, context = tp.set_cut(model, remembered)
        _, states = tp.set_cut_optimizer(model, optimizer, remembered)
        held.append(steps(model, optimizer, x))
        tp.recovery_optimizer(model, optimizer, remembered, states)
        tp.recovery_cut(model, remembered, context)
        held.append(steps(model, optimizer, x))
        assert model.aux[0].weight.shape == (5, 8, 1, 1)

    def test_a_statistic_that_training_updates_is_cut_along(self) -> None:
        model, x = Codebook().eval(), torch.randn(4, 6)
        model.average += torch.arange(8.0)
        graph = built(model, x)
        assert graph.unread == ("self.average",)
        _, context = tp.set_cut(model, graph.nodes["self.into.weight"].cut_analysis([1], 0))
        assert model.average.tolist() == [0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
        assert list(context.followed) == ["self.average"]
        model.train()(x)

    def test_a_head_that_leaves_its_result_in_an_attribute_is_cut_along(self) -> None:
        class Aside(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.into, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
                self.extra = nn.Linear(8, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                h = self.into(x)
                if self.training:
                    self.aside = self.extra(h)
                return self.out(h)

        model, x = Aside().eval(), torch.randn(4, 6)
        hooks = len(model._forward_hooks)
        result = built(model, x).nodes["self.into.weight"].cut_analysis([1], 0)
        tp.set_cut(model, result)
        assert model.extra.in_features == 7 and len(model._forward_hooks) == hooks
        assert not hasattr(model, "aside")
        model.train()(x)

    def test_heads_in_a_list_are_cut_along_with_the_stage_that_each_reads(self) -> None:
        class Supervised(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stages = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
                self.heads = nn.ModuleList([nn.Linear(8, 2) for _ in range(3)])

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                found = []
                for stage, head in zip(self.stages, self.heads, strict=True):
                    x = stage(x).relu()
                    if self.training or head is self.heads[-1]:
                        found.append(head(x))
                return torch.stack(found).sum(0)

        model, x = Supervised().eval(), torch.randn(4, 8)
        result = built(model, x).nodes["self.stages.0.weight"].cut_analysis([1, 4], 0)
        _, context = tp.set_cut(model, result)
        assert [head.in_features for head in model.heads] == [6, 8, 8]
        loss = model.train()(x).sum()
        loss.backward()
        tp.recovery_cut(model, result, context)
        model(x).sum().backward()


class TestNamed:
    def test_build_graph_names_the_parameters_it_never_saw(self) -> None:
        model = MaskToken().eval()
        graph = tp.ONNXGraph(model)
        with pytest.warns(StaleStateWarning, match=r"never reads self\.token, self\.unrelated"):
            graph.build_graph((torch.randn(2, 5, 6),), fill_value=False)
        assert graph.unread == ("self.token", "self.unrelated")

    @pytest.mark.filterwarnings("error::torchpruner_core.errors.StaleStateWarning")
    def test_it_is_silent_where_all_is_read(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        graph = tp.ONNXGraph(model).build_graph((torch.randn(2, 3, 2, 2),), fill_value=False)
        assert graph.unread == ()

    def test_what_no_training_run_reads_is_named_by_the_cut(self) -> None:
        model, x = MaskToken().eval(), torch.randn(2, 5, 6)
        result = built(model, x).nodes["self.into.weight"].cut_analysis([0], 0)
        assert tp.CutResult.from_json(result.to_json()).unread == ("self.token", "self.unrelated")
        with pytest.warns(StaleStateWarning, match=r"self\.token stays as it is"):
            _, context = tp.set_cut(model, result)
        assert context.followed == {}
        tp.recovery_cut(model, result, context)

    @pytest.mark.filterwarnings("error::torchpruner_core.errors.StaleStateWarning")
    def test_a_cut_that_is_not_near_says_nothing(self) -> None:
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = (
                    MaskToken(),
                    nn.Sequential(nn.Linear(3, 12), nn.Linear(12, 2)),
                )

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.second(self.first(x))

        model, x = Two().eval(), torch.randn(2, 5, 6)
        tp.set_cut(model, built(model, x).nodes["self.second.0.weight"].cut_analysis([0], 0))

    def test_a_training_graph_that_would_take_more_is_not_followed(self) -> None:
        class Coupled(Auxiliary):
            def forward(self, x: torch.Tensor) -> Any:
                y = super().forward(x)
                if not self.training:
                    return y
                return y[0], y[1], y[2] + F.pad(x, (0, -2, 0, -2, 0, 5))

        model, x = Coupled(), torch.randn(2, 3, 6, 6)
        result = built(model.eval(), x[:1]).nodes["self.stem.weight"].cut_analysis([0], 0)
        with pytest.warns(StaleStateWarning, match=r"self\.grouped\.weight"):
            _, context = tp.set_cut(model, result)
        assert not context.followed and model.stem.weight.shape[0] == 7


class Sampled(nn.Module):
    """Mean and deviation are outputs; in training alone they are added up."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 16), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> Any:
        mean, deviation = self.encode(x).chunk(2, -1)
        latent = mean
        if self.training:
            latent = mean + torch.randn_like(mean) * deviation.exp()
        return self.decode(latent), mean, deviation


def test_a_forward_that_will_fail_in_training_alone_is_told() -> None:
    model = Sampled().eval()
    graph = tp.ONNXGraph(model)
    graph.build_graph((torch.randn(2, 6),), fill_value=False)
    lone = graph.solved.cut_analysis("self.encode.weight", [12], 0)
    with pytest.warns(StaleStateWarning, match="fails in training mode"):
        set_again = tp.set_cut(model, lone, correct_forward=True)
    tp.recovery_cut(model, lone, set_again[1])
    both = [tp.CutRequest("self.encode.weight", 0, (4, 12))]
    joint = graph.solved.cut_analysis_many(both)
    with warnings.catch_warnings():
        warnings.simplefilter("error", StaleStateWarning)
        tp.set_cut(model, joint, correct_forward=True)
    assert model.train()(torch.randn(2, 6))[1].shape == (2, 7)


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning")
def test_the_ranges_of_a_default_observer_follow_its_scales_and_come_back() -> None:
    from torch.ao import quantization

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)).train()
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    quantization.prepare_qat(model, inplace=True)
    x = torch.randn(2, 3, 4, 4)
    model(x)
    model.eval()
    graph = tp.ONNXGraph(model)
    graph.build_graph((x,), fill_value=False)
    cut = graph.solved.cut_analysis("self.0.weight", [1, 5], 0)
    before = state(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", StaleStateWarning)
        _, context = tp.set_cut(model, cut)
    observer = model[0].weight_fake_quant.activation_post_process
    assert observer.min_val.shape == observer.max_val.shape == (6,)
    tp.recovery_cut(model, cut, context)
    assert_same(before, state(model))
    _, context = tp.set_cut(model, cut)
    model.train()(x).sum().backward()
    assert model[0].weight.grad.shape == (6, 3, 1, 1)
