"""Tables that a module holds beside its buffers follow a cut, and come back as the objects they were."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torchpruner_core as tp
from tests.core.pruning.nets import assert_same, state

X = torch.randn(2, 3, 4, 4)


class Held(nn.Module):
    """Eight channels, of which a subclass makes as many as ``wide``."""

    wide = 8

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(self.wide, 4, 1)
        self.table: Any = self.made()

    def made(self) -> Any:
        raise NotImplementedError

    def between(self, h: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.between(self.stem(x)))
        return result


class ScaledByAnArray(Held):
    def made(self) -> Any:
        return np.linspace(0.5, 2, 8, dtype=np.float32).reshape(1, 8, 1, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h * torch.from_numpy(self.table)


class ScaledByANestedTensor(Held):
    def made(self) -> Any:
        return {"low": [torch.rand(8), 3], "high": torch.rand(8)}

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h * self.table["high"].sin().view(1, -1, 1, 1)


class MeansInAList(Held):
    def made(self) -> Any:
        return [k / 8 for k in range(8)]

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return (h - torch.tensor(self.table).view(1, -1, 1, 1)).tanh()


class MaskInAnArray(Held):
    wide = 4

    def made(self) -> Any:
        return np.arange(8) % 2 == 0

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, self.table]


class PositionsInADict(Held):
    wide = 6

    def made(self) -> Any:
        return {"a": torch.tensor([0, 2, 5]), "b": (1, 6, 7)}

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return torch.cat([h[:, self.table["a"]].tanh(), h[:, list(self.table["b"])]], 1)


NETWORKS = [
    ScaledByAnArray, ScaledByANestedTensor, MeansInAList, MaskInAnArray, PositionsInADict,
]  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS)
def test_a_table_follows_and_comes_back(
    network: type[Held], capfd: pytest.CaptureFixture[str]
) -> None:
    model = network().eval()
    graph = tp.ONNXGraph(model)
    graph.build_graph((X,), fill_value=False)
    result = graph.solved.cut_analysis("self.stem.weight", [1, 6], 0)
    table, before, whole = model.table, state(model), model(X)
    _, context = tp.set_cut(model, result, inputs=(X,), verify=True)
    assert all(each.difference <= 1e-4 for each in context.verified)
    assert "failed while attempting" not in capfd.readouterr().err
    tp.recovery_cut(model, result, pickle.loads(pickle.dumps(context)))
    assert_same(before, state(model))
    assert torch.equal(model(X), whole)
    assert type(model.table) is type(table)


class Routed(nn.Module):
    """The first softmax is one of zeros: its result is a constant of the graph, and no operator."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Linear(4, 8), nn.Linear(6, 3)
        self.votes = nn.Parameter(torch.randn(1, 5, 7, 6, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        votes = (self.votes @ self.embed(x)[:, :, None, :, None]).squeeze(-1)
        logits = torch.zeros(x.shape[0], 5, 7)
        for _ in range(2):
            poses = (logits.softmax(2)[..., None] * votes).sum(1)
            logits = logits + (votes * poses[:, None]).sum(-1)
        found: torch.Tensor = self.head(poses).sum(1)
        return found


def test_a_softmax_that_the_graph_holds_as_a_constant_is_not_recomputed_silently() -> None:
    model = Routed().eval()
    graph = tp.ONNXGraph(model)
    graph.build_graph((torch.randn(2, 5, 4),), fill_value=False)
    result = graph.solved.cut_analysis("self.votes", [3], 2)
    before = state(model)
    with pytest.raises(tp.LiteralInForwardError):
        tp.set_cut(model, result, correct_forward=True)
    assert_same(before, state(model))
