"""Cutting in the middle of a training loop, as people write it: the last step's tensors are alive."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import torchpruner_core as tp
from tests.core.pruning.nets import ConvNet, conv_net_cut
from tests.core.pruning.training_networks import (
    NETWORKS,
    Attention,
    Conv,
    Embedding,
    analysed,
    loss_of,
    step,
)
from torchpruner_core.errors import StaleGraphError


@dataclass
class Alive:
    """What of an earlier forward somebody still holds, by name."""

    name: str
    hold: Callable[[Any, torch.Tensor], Any]

    def __str__(self) -> str:
        return self.name


def _weights(model: Any) -> list[torch.Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


VIEWS = Alive("views of the weights", lambda model, x: [p.view(-1) for p in _weights(model)])
HELD = [
    Alive("the loss", lambda model, x: loss_of(model, x)),
    Alive("the output", lambda model, x: model(x)),
    Alive("clones of the weights", lambda model, x: [p.clone() for p in _weights(model)]),
    Alive("casts of the weights", lambda model, x: [p.to(torch.float64) for p in _weights(model)]),
    Alive("a penalty", lambda model, x: sum(p.square().sum() for p in _weights(model))),
]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("alive", [*HELD, VIEWS], ids=str)
def test_training_goes_on_whatever_of_an_earlier_step_is_alive(
    network: type[Any], alive: Alive
) -> None:
    model, x = network(), network().example()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loss = step(model, optimizer, x)
    held = [loss, alive.hold(model, x)]
    result = analysed(model, [1])
    identities = [id(p) for p in model.parameters()]
    model, context = tp.set_cut(model, result)
    optimizer, state = tp.set_cut_optimizer(model, optimizer, result)
    held += [step(model, optimizer, x), alive.hold(model, x)]
    model = tp.recovery_cut(model, result, context)
    optimizer = tp.recovery_optimizer(model, optimizer, result, state)
    held.append(step(model, optimizer, x))
    assert [id(p) for p in model.parameters()] == identities
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_the_steps_after_a_cut_are_those_of_a_network_that_was_made_so(network: type[Any]) -> None:
    model = network()
    x = model.example()
    kept = loss_of(model, x)
    kept.backward()
    model.zero_grad()
    tp.set_cut(model, analysed(model, [0, 2] if network is not Attention else [0]))
    fresh = pickle.loads(pickle.dumps(model))  # autograd knows nothing of this one
    for each in (model, fresh):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            step(each, optimizer, x)
    for ours, other in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(ours, other)


class TestAnOldGraph:
    """What was recorded before a cut cannot be run backwards after it, and says so."""

    @pytest.mark.parametrize("network", NETWORKS)
    @pytest.mark.parametrize("alive", HELD, ids=str)
    def test_its_backward_is_refused_and_leaves_no_gradient(
        self, network: type[Any], alive: Alive
    ) -> None:
        model = network()
        held = alive.hold(model, model.example())
        result = analysed(model, [1])
        tp.set_cut(model, result)
        cut = [p for name, p in model.named_parameters() if f"self.{name}" in result.terminal]
        if isinstance(held, list):
            owners = {id(p): each for p, each in zip(_weights(model), held, strict=True)}
            held = [owners[id(p)] for p in cut]
        for each in held if isinstance(held, list) else [held]:
            with pytest.raises(RuntimeError, match=r"run the forward again|modified by an inplace"):
                each.sum().backward()
        assert all(parameter.grad is None for parameter in cut)

    def test_the_error_names_both_shapes(self) -> None:
        model = ConvNet()
        held = model[0].weight.clone()
        tp.set_cut(model, conv_net_cut([0, 1]))
        with pytest.raises(StaleGraphError, match=r"\(6, 3, 3, 3\) still had the shape \(8, 3"):
            held.sum().backward()

    def test_it_is_good_again_after_a_module_pruner_that_failed(self) -> None:
        class Fails(tp.module_pruner.BasePruner):
            def set_cut(self, nn_module: Any, cut_dict: Any) -> Any:
                super().set_cut(nn_module, cut_dict)
                raise ValueError("halfway")

        class Own(nn.Conv2d):
            pass

        model = ConvNet()
        model[3] = Own(8, 4, 3)
        loss = model(torch.randn(2, 3, 9, 9)).sum()
        with (
            tp.module_pruner_reg.temporarily(Own, Fails),
            pytest.raises(tp.ReplayError, match="halfway"),
        ):
            tp.set_cut(model, conv_net_cut([0]))
        loss.backward()
        assert model[3].weight.grad.shape == (4, 8, 3, 3)

    def test_a_module_pruner_that_sets_data_by_hand_does_not_stop_the_training(self) -> None:
        class ByHand(tp.module_pruner.BasePruner):
            def set_cut(self, nn_module: Any, cut_dict: Any) -> Any:
                nn_module.weight.data = nn_module.weight.data[:, 1:].clone()
                nn_module.in_channels -= 1
                return nn_module, {}

        class Own(nn.Conv2d):
            pass

        model = ConvNet()
        model[3] = Own(8, 4, 3)
        x = torch.randn(2, 3, 9, 9)
        loss = model(x).sum()
        with tp.module_pruner_reg.temporarily(Own, ByHand):
            tp.set_cut(model, conv_net_cut([0]))
        model(x).sum().backward()
        assert model[3].weight.grad.shape == (4, 7, 3, 3)
        del loss

    def test_it_is_let_go_of_with_its_last_tensor(self) -> None:
        model = Conv()
        x = model.example()
        saved = weakref.ref(x)
        loss = loss_of(model, x)
        tp.set_cut(model, analysed(model, [0]))
        del loss, x
        gc.collect()
        assert saved() is None


class TestOptimizers:
    """Every optimizer of PyTorch: train, cut, train, recover, train, with the losses alive."""

    EXTRA: ClassVar[dict[str, dict[str, Any]]] = {
        "SGD": {"lr": 0.01, "momentum": 0.9},
        "RMSprop": {"centered": True, "momentum": 0.9},
        "Rprop": {"lr": 0.01},
        "Adam": {"amsgrad": True},
        "AdamW": {"fused": True},
        "Adagrad": {"initial_accumulator_value": 0.1},
        "LBFGS": {"lr": 0.1, "max_iter": 3},
    }
    NAMES: ClassVar[list[str]] = sorted(
        name
        for name, each in vars(torch.optim).items()
        if isinstance(each, type)
        and issubclass(each, torch.optim.Optimizer)
        and each is not torch.optim.Optimizer
    )

    @pytest.mark.parametrize("network", NETWORKS)
    @pytest.mark.parametrize("name", NAMES)
    def test_goes_on_through_a_cut_and_its_recovery(self, name: str, network: type[Any]) -> None:
        model = network(sparse=True) if (name, network) == ("SparseAdam", Embedding) else network()
        x = model.example()
        parameters = list(model.parameters())
        if name == "Muon":  # for matrices alone
            parameters = [p for p in parameters if p.dim() == 2]
        if name == "SparseAdam":
            if network is not Embedding:
                pytest.skip("SparseAdam takes sparse gradients, which only a table gives")
            parameters = [model.table.weight]
        optimizer = getattr(torch.optim, name)(parameters, **self.EXTRA.get(name, {}))
        losses = [step(model, optimizer, x) for _ in range(2)]
        result = analysed(model, [1])
        model, context = tp.set_cut(model, result)
        optimizer, state = tp.set_cut_optimizer(model, optimizer, result)
        losses += [step(model, optimizer, x) for _ in range(2)]
        optimizer.load_state_dict(optimizer.state_dict())
        losses += [step(model, optimizer, x) for _ in range(2)]
        model = tp.recovery_cut(model, result, context)
        optimizer = tp.recovery_optimizer(model, optimizer, result, state)
        losses += [step(model, optimizer, x) for _ in range(2)]
        assert all(torch.isfinite(loss) for loss in losses)

    @pytest.mark.parametrize("scheduler", ["StepLR", "CosineAnnealingLR", "OneCycleLR", "LambdaLR"])
    def test_learning_rate_schedulers_go_on(self, scheduler: str) -> None:
        model = Conv()
        x = model.example()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        arguments: dict[str, dict[str, Any]] = {
            "StepLR": {"step_size": 1},
            "CosineAnnealingLR": {"T_max": 4},
            "OneCycleLR": {"max_lr": 0.1, "total_steps": 8},
            "LambdaLR": {"lr_lambda": lambda epoch: 0.5**epoch},
        }
        rates = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **arguments[scheduler])
        seen = []
        for turn in range(4):
            loss = step(model, optimizer, x)
            rates.step()
            seen.append(rates.get_last_lr()[0])
            if turn == 1:
                result = analysed(model, [0])
                tp.set_cut(model, result)
                tp.set_cut_optimizer(model, optimizer, result)
        assert optimizer.param_groups[0]["lr"] == seen[-1] and len(set(seen)) > 2
        assert torch.isfinite(loss)

    def test_an_optimizer_that_steps_in_the_backward_pass_goes_on(self) -> None:
        model = Conv()
        optimizers = {p: torch.optim.Adam([p], foreach=False) for p in model.parameters()}

        def update(parameter: torch.Tensor) -> None:
            optimizers[parameter].step()
            optimizers[parameter].zero_grad()

        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(update)
        x = model.example()
        loss = loss_of(model, x)
        loss.backward()
        result = analysed(model, [0])
        tp.set_cut(model, result)
        for name, parameter in model.named_parameters():
            if f"self.{name}" in result.terminal:
                tp.set_cut_optimizer(model, optimizers[parameter], result)
        before = model.first.weight.detach().clone()
        loss = loss_of(model, x)
        loss.backward()
        assert not torch.equal(model.first.weight, before)
