"""Small networks of each kind of layer, their cuts and a step of training them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import torchpruner_core as tp

HIDDEN = 12


class Conv(nn.Module):
    """conv - norm - conv - linear."""

    cut = ("self.first.weight", 0)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, HIDDEN, 3, padding=1)
        self.norm = nn.BatchNorm2d(HIDDEN)
        self.second = nn.Conv2d(HIDDEN, 8, 3)
        self.head = nn.Linear(8, 4)

    def example(self) -> torch.Tensor:
        return torch.randn(4, 3, 8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(F.relu(self.norm(self.first(x))))
        return self.head(x.mean((2, 3)))


class Linear(nn.Module):
    """Two linear layers without bias, one with a weight norm."""

    cut = ("self.first.weight", 0)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, HIDDEN, bias=False)
        self.gain = nn.Parameter(torch.ones(HIDDEN))
        self.head = nn.Linear(HIDDEN, 4)

    def example(self) -> torch.Tensor:
        return torch.randn(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.first(x) * self.gain))


class Embedding(nn.Module):
    """A table whose rows are read, and read again as the output layer (tied)."""

    cut = ("self.table.weight", 1)

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(20, HIDDEN, sparse=sparse)
        self.mix = nn.Linear(HIDDEN, HIDDEN)
        self.head = nn.Linear(HIDDEN, 20, bias=False)
        if not sparse:
            self.head.weight = self.table.weight

    def example(self) -> torch.Tensor:
        return torch.randint(0, 20, (4, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.table(x)
        return self.head(h + self.mix(h)).mean(1)[:, :4]


class Recurrent(nn.Module):
    """An LSTM between two linear layers; its hidden units go."""

    cut = ("self.rnn.weight_hh_l0", 1)

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 4)

    def example(self) -> torch.Tensor:
        return torch.randn(4, 5, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    """Self-attention of which a head goes."""

    cut = ("self.attention.in_proj_weight", 0)

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(HIDDEN, 4, batch_first=True)
        self.norm = nn.LayerNorm(HIDDEN)
        self.head = nn.Linear(HIDDEN, 4)

    def example(self) -> torch.Tensor:
        return torch.randn(4, 5, HIDDEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.norm(h).mean(1))


NETWORKS = [Conv, Linear, Embedding, Recurrent, Attention]


_analysed: dict[Any, tp.CutResult] = {}


def analysed(model: Any, index: list[int]) -> tp.CutResult:
    """Return the cut of some hidden units of a network."""
    shapes = tuple(tuple(p.shape) for p in model.parameters())
    key = (type(model), shapes, tuple(index))
    if key not in _analysed:
        graph = tp.ONNXGraph(model)
        graph.build_graph((model.example()[:1],), fill_value=False)
        node, dim = model.cut
        _analysed[key] = graph.nodes[node].cut_analysis(index, dim)
    return _analysed[key]


def loss_of(model: Any, x: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(x), torch.arange(len(x)) % 4)


def step(model: Any, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
    """Take one step as a training loop does, and return its loss, graph and all."""

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, x)
        loss.backward()
        return loss

    loss = closure()
    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(closure)
    else:
        optimizer.step()
    return loss
