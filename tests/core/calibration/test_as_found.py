"""Whatever a forward does, and however the run ends, the model is as it was."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import torchpruner_core as tp
from torchpruner_core.calibration.errors import (
    BatchError,
    CalibrationCancelledError,
    NotFiniteError,
)


class Restless(nn.Module):
    """A forward that counts, caches, draws random numbers and changes a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.fc2 = nn.Linear(8, 3)
        self.calls = 0
        self.register_buffer("seen", torch.zeros(1))
        self.fc1.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.cache = x
        self.seen.add_(1)
        return self.fc2(torch.relu(self.norm(self.fc1(x))) * (1 + 0 * torch.rand(1)))


@functools.cache
def graph() -> Any:
    built = tp.ONNXGraph(Restless())
    built.build_graph((torch.rand(2, 4),), fill_value=False)
    return built


def made() -> tuple[Restless, Any]:
    torch.manual_seed(0)
    model = Restless()
    model.fc2.weight.grad = torch.ones_like(model.fc2.weight)
    model.train()
    model.norm.eval()
    return model, graph()


def state(model: Restless) -> dict[str, Any]:
    return {
        "values": {k: v.clone() for k, v in model.state_dict().items()},
        "modes": [m.training for m in model.modules()],
        "grads": [
            None if p.grad is None else (id(p.grad), p.grad.clone()) for p in model.parameters()
        ],
        "asked": [p.requires_grad for p in model.parameters()],
        "keys": sorted(model.__dict__),
        "calls": model.calls,
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "random": torch.get_rng_state(),
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


LABELLED = [(torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])) for _ in range(3)]
Run = Callable[..., Any]
RUNS: dict[str, Run] = {
    "taylor": lambda m, g, b, **k: tp.importance.taylor(m, g, b, loss, **k),
    "fisher": lambda m, g, b, **k: tp.importance.fisher(m, g, b, loss, **k),
    "activation": lambda m, g, b, **k: tp.importance.activation(
        m, g, b, forward=lambda model, batch: model(batch[0]), **k
    ),
    "fluctuation": lambda m, g, b, **k: tp.importance.fluctuation(
        m, g, b, forward=lambda model, batch: model(batch[0]), **k
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_scores_leave_the_model_as_it_was(name: str) -> None:
    model, graph = made()
    before = state(model)
    RUNS[name](model, graph, LABELLED)
    assert same(state(model), before)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(
    ("batches", "error"),
    [
        ([], BatchError),
        (iter(()), BatchError),
        (torch.rand(3, 4), BatchError),
        (7, BatchError),
        ([(torch.rand(2, 5), torch.tensor([0, 1]))], BatchError),
        ([(torch.full((2, 4), torch.nan), torch.tensor([0, 1]))], NotFiniteError),
    ],
)
def test_batches_that_do_not_fit_are_named_and_change_nothing(
    name: str, batches: Any, error: type[Exception]
) -> None:
    model, graph = made()
    before = state(model)
    with pytest.raises(error):
        RUNS[name](model, graph, batches)
    assert same(state(model), before)


@pytest.mark.parametrize("name", RUNS)
def test_numbers_that_overflow_on_the_way_are_named(name: str) -> None:
    model, graph = made()
    model.norm.weight.data.fill_(1e38)
    model.norm.bias.data.fill_(1e38)
    model.fc2.weight.data.fill_(1e3)
    before = state(model)
    with pytest.raises(NotFiniteError):
        RUNS[name](model, graph, LABELLED)
    assert same(state(model), before)


@pytest.mark.parametrize("name", RUNS)
def test_progress_is_told_of_each_batch_and_can_stop_the_run(name: str) -> None:
    model, graph = made()
    told: list[tuple[int, int | None]] = []
    RUNS[name](model, graph, LABELLED, progress=lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]
    before = state(model)
    with pytest.raises(CalibrationCancelledError, match="2 of 3"):
        RUNS[name](model, graph, LABELLED, progress=lambda done, total: done < 2)
    assert same(state(model), before)


def test_an_interruption_changes_nothing() -> None:
    model, graph = made()
    before = state(model)

    def interrupted() -> Any:
        yield LABELLED[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tp.importance.taylor(model, graph, interrupted, loss)
    assert same(state(model), before)


def test_a_loss_without_gradient_is_explained() -> None:
    model, graph = made()
    with pytest.raises(BatchError, match="scalar"):
        tp.importance.taylor(model, graph, LABELLED, lambda m, b: m(b[0]))
    with pytest.raises(BatchError, match="without gradients"):
        tp.importance.taylor(model, graph, LABELLED, lambda m, b: m(b[0]).detach().sum())
    with pytest.raises(BatchError, match="cross_entropy"):
        tp.importance.taylor(model, graph, LABELLED)
