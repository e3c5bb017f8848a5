"""Branches: auxiliary heads in training, conditions that are constant, experts that data chooses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.zoo.adversarial.sandwich import Sandwich, of_images
from benchmarks.zoo.specimen import Inputs, Specimen


class AuxiliaryHead(Sandwich):
    """A second classifier that runs in training only."""

    def prepare(self) -> None:
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.auxiliary = nn.Conv2d(16, 5, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        y = self.body(h).relu()
        if self.training:
            self.extra = self.auxiliary(h)
        return y


class DeepSupervision(nn.Module):
    """Each stage has a head; only the last runs in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [nn.Conv2d(3 if k == 0 else 12, 12, 3, padding=1) for k in range(3)]
        )
        self.heads = nn.ModuleList([nn.Conv2d(12, 5, 1) for _ in range(3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x).relu()
            if self.training or head is self.heads[-1]:
                found.append(head(x))
        return torch.stack(found).sum(0)


class StochasticDepth(Sandwich):
    def prepare(self) -> None:
        self.body = nn.Conv2d(16, 16, 3, padding=1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        if self.training and torch.rand(()).item() < 0.5:
            return h
        return h + self.body(h).tanh()


class SkipWhereItFits(Sandwich):
    """A residual connection where the channels agree, which a cut must not change."""

    def prepare(self) -> None:
        self.body = nn.Conv2d(16, 12, 3, padding=1)

    narrow = 12

    def between(self, h: torch.Tensor) -> torch.Tensor:
        y = self.body(h)
        return y + h if y.shape[1] == h.shape[1] else y.tanh()


class Projected(Sandwich):
    """A shortcut that is projected where the channels differ."""

    def prepare(self) -> None:
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.projection = nn.Conv2d(16, 16, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        y = self.body(h)
        short = h if h.shape[1] == y.shape[1] else self.projection(h)
        return short + y.tanh()


class SoftExperts(Sandwich):
    """Every expert runs, and is weighed."""

    def prepare(self) -> None:
        self.gate = nn.Linear(16, 3)
        self.up = nn.ModuleList([nn.Conv2d(16, 12, 1) for _ in range(3)])
        self.down = nn.ModuleList([nn.Conv2d(12, 16, 1) for _ in range(3)])

    def between(self, h: torch.Tensor) -> torch.Tensor:
        weights = self.gate(h.mean((2, 3))).softmax(-1)
        parts = [d(u(h).relu()) for u, d in zip(self.up, self.down, strict=True)]
        return torch.einsum("be,ebchw->bchw", weights, torch.stack(parts))


class ChosenExperts(nn.Module):
    """The two best experts of each token, with their weights in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.router = nn.Linear(16, 4)
        self.up_weight = nn.Parameter(torch.randn(4, 16, 12))
        self.down_weight = nn.Parameter(torch.randn(4, 12, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x).tanh()
        scores, chosen = self.router(h).softmax(-1).topk(2, -1)
        up, down = self.up_weight[chosen], self.down_weight[chosen]
        inner = torch.einsum("btc,btkcd->btkd", h, up).relu()
        out = torch.einsum("btkd,btkdc,btk->btc", inner, down, scores)
        found: torch.Tensor = self.head(h + out)
        return found


class PerExpertLoop(nn.Module):
    """Tokens are picked out for each expert, and put back."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.router = nn.Linear(6, 16), nn.Linear(16, 3)
        self.up = nn.ModuleList([nn.Linear(16, 12) for _ in range(3)])
        self.down = nn.ModuleList([nn.Linear(12, 16) for _ in range(3)])
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x).tanh()
        weights = self.router(h).softmax(-1)
        best = F.one_hot(weights.argmax(-1), 3).to(h.dtype)
        out = torch.zeros_like(h)
        for k in range(3):
            part = self.down[k](self.up[k](h).relu())
            out = out + part * (weights[..., k] * best[..., k]).unsqueeze(-1)
        found: torch.Tensor = self.head(h + out)
        return found


def specimens() -> Iterator[Specimen]:
    """Yield the networks of this kind."""
    networks = (
        AuxiliaryHead, DeepSupervision, StochasticDepth, SkipWhereItFits, Projected, SoftExperts,
    )  # fmt: skip
    yield from of_images("branches", networks)
    for network in (ChosenExperts, PerExpertLoop):
        build = partial(_built, network)
        yield Specimen(network.__name__, "adversarial/branches", build)


def _built(network: type[nn.Module]) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    return network().eval(), (torch.randn(2, 5, 6),)
