"""The same network through three entrances: the same names, the same groups, the same cuts."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn

from torchpruner_core import ONNXGraph
from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.errors import EmptyAxisError, OpaqueAxisError


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.qkv = nn.Linear(width, 3 * heads * size)
        self.out = nn.Linear(heads * size, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, _ = x.shape
        qkv = self.qkv(x).reshape(b, t, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        weights = (q @ k.transpose(-2, -1) * self.size**-0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, self.heads * self.size))


class Shuffle(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class Block(nn.Module):
    """One random block: a body of drawn layers, with or without a residual."""

    def __init__(self, rng: random.Random, width: int) -> None:
        super().__init__()
        inner = 2 * rng.randint(2, 4)
        layers: list[nn.Module] = [nn.Conv2d(width, inner, 3, padding=1), nn.BatchNorm2d(inner)]
        for _ in range(rng.randint(1, 3)):
            layers.append(
                rng.choice(
                    [
                        lambda: nn.Conv2d(
                            inner, inner, 3, padding=1, groups=rng.choice([1, 2, inner])
                        ),
                        lambda: nn.GroupNorm(2, inner),
                        lambda: nn.BatchNorm2d(inner),
                        lambda: nn.PReLU(inner),
                        nn.SiLU,
                        nn.GELU,
                        Shuffle,
                    ]
                )()
            )
        self.body = nn.Sequential(*layers, nn.Conv2d(inner, width, 1, bias=False))
        self.residual = rng.random() < 0.6
        self.scale = nn.Parameter(torch.ones(width, 1, 1)) if rng.random() < 0.5 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        if self.scale is not None:
            y = y * self.scale
        return x + y if self.residual else torch.relu(y)


class Drawn(nn.Module):
    """Convolutional blocks, tokens through attention, a recurrent layer or both, and a head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        width = rng.choice([4, 6])
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(rng, width) for _ in range(rng.randint(1, 2)))
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, rng.choice([2, 3]), 4) if rng.random() < 0.7 else None
        self.rnn = nn.GRU(width, 4, batch_first=True) if rng.random() < 0.5 else None
        self.position = nn.Parameter(torch.zeros(1, 16, width))
        self.head = nn.Linear(4 if self.rnn is not None else width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        tokens = self.norm(x.flatten(2).transpose(1, 2) + self.position)
        if self.attention is not None:
            tokens = tokens + self.attention(tokens)
        if self.rnn is not None:
            tokens = self.rnn(tokens)[0]
        return self.head(tokens.mean(1))


def solved(model: Any, x: torch.Tensor) -> SolvedGraph:
    return ONNXGraph(model).build_graph((x,), fill_value=False).solved


def parameters(graph: SolvedGraph) -> dict[str, tuple[int, ...]]:
    return {
        name: node.shape
        for name, node in graph.nodes.items()
        if node.kind in ("parameter", "buffer")
    }


def answer(graph: SolvedGraph, name: str, index: list[int], dim: int, granularity: Any) -> Any:
    try:
        result = graph.cut_analysis(name, index, dim, granularity=granularity)
    except OpaqueAxisError:
        return "opaque"
    except EmptyAxisError:
        return "empty"
    known = parameters(graph)
    shown = {n: axes for n, axes in result.to_dict()["terminal"].items() if n in known}
    return (
        shown,
        result.params_removed,
        result.flops_before,
        result.flops_after,
        len(result.choices),
    )


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_random_modules_have_one_answer(seed, tmp_path):
    torch.manual_seed(seed)
    model, x = Drawn(seed).eval(), torch.zeros(1, 3, 4, 4)
    traced = tmp_path / "model.pt"
    torch.jit.save(torch.jit.trace(model, x), traced)
    exported = tmp_path / "model.onnx"
    torch.onnx.export(model, (x,), exported, dynamo=False, do_constant_folding=False,
                      training=torch.onnx.TrainingMode.PRESERVE)  # fmt: skip
    graphs = [solved(model, x), solved(str(traced), x), solved(str(exported), x)]
    assert parameters(graphs[0]) == parameters(graphs[1]) == parameters(graphs[2])
    rng = random.Random(seed)
    axes = [
        (n, d, s)
        for n, shape in parameters(graphs[0]).items()
        for d, s in enumerate(shape)
        if s > 1
    ]
    for name, dim, size in axes:
        index = sorted(rng.sample(range(size), rng.randint(1, min(3, size - 1))))
        for granularity in ("auto", "inner"):
            first, *others = (answer(g, name, index, dim, granularity) for g in graphs)
            for other in others:
                assert other == first, (name, index, dim, granularity)
