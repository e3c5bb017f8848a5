"""Small networks that the planner's tests plan on."""

from __future__ import annotations

import functools
import itertools

import torch
from torch import nn
from torch.nn import functional as F

import torchpruner_core as tp


class Residual(nn.Module):
    """A residual stream, a bottleneck beside it, a concatenation and a head."""

    def __init__(self, stream: int = 16, inner: int = 24, side: int = 20) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stream, 3, padding=1)
        self.bn = nn.BatchNorm2d(stream)
        self.conv1 = nn.Conv2d(stream, inner, 3, padding=1)
        self.conv2 = nn.Conv2d(inner, stream, 3, padding=1)
        self.side = nn.Conv2d(stream, side, 1)
        self.mix = nn.Conv2d(stream + side, 32, 1)
        self.fc = nn.Linear(32, 5)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(x + self.conv2(F.relu(self.conv1(x))))
        x = torch.cat([x, self.side(x)], 1)
        return self.fc(F.relu(self.mix(x)).mean((2, 3)))


class GroupedQuery(nn.Module):
    """Attention with four query heads on two key/value heads of eight features, and an MLP."""

    def __init__(self, width: int = 24, heads: int = 4, shared: int = 2, size: int = 8) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, size
        self.q = nn.Linear(width, heads * size)
        self.k = nn.Linear(width, shared * size)
        self.v = nn.Linear(width, shared * size)
        self.o = nn.Linear(heads * size, width)
        self.up = nn.Linear(width, 40)
        self.down = nn.Linear(40, width)

    def forward(self, x):
        b, n, _ = x.shape
        q = self.q(x).view(b, n, -1, self.size).transpose(1, 2)
        k, v = (
            layer(x)
            .view(b, n, -1, 1, self.size)
            .expand(-1, -1, -1, self.heads // self.shared, -1)
            .reshape(b, n, -1, self.size)
            .transpose(1, 2)
            for layer in (self.k, self.v)
        )
        weights = torch.softmax(q @ k.transpose(2, 3) / self.size**0.5, -1)
        x = x + self.o((weights @ v).transpose(1, 2).reshape(b, n, -1))
        return x + self.down(F.relu(self.up(x)))


class Grouped(nn.Module):
    """A grouped convolution of four groups of four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 16, 1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.after = nn.Conv2d(16, 6, 1)

    def forward(self, x):
        return self.after(F.relu(self.grouped(F.relu(self.before(x)))))


class Chunked(nn.Module):
    """Two halves of an axis that nothing but ``chunk`` ties to one another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        a, b = self.first(x).chunk(2, 1)
        return self.last(torch.cat([a.relu(), self.second(b).relu()], 1))


IMAGE = (torch.zeros(1, 3, 8, 8),)
TOKENS = (torch.zeros(1, 5, 24),)


@functools.cache
def mlp(*widths: int) -> nn.Module:
    """A chain of linear layers."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def graph_of(model: nn.Module, inputs) -> tp.ONNXGraph:
    graph = tp.ONNXGraph(model.eval())
    graph.build_graph(inputs, fill_value=False)
    return graph


def random_scores(graph, seed: int = 0, low: float = 0.0):
    """One uniform number for each slice of every output axis of a weight that can be shortened."""
    import numpy as np

    solved = getattr(graph, "solved", graph)
    random = np.random.default_rng(seed)
    return {
        (name, 0): low + random.random(node.shape[0])
        for name, node in solved.nodes.items()
        if node.kind == "parameter"
        and len(node.shape) > 1
        and not solved.coupling.class_frozen[solved.classes_of(name)[0]]
    }
