"""Code that asks a size which way to go, and networks whose data or mode decides what runs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.zoo.adversarial.sandwich import Sandwich, of_images
from benchmarks.zoo.specimen import Inputs, Specimen


class Asserted(Sandwich):
    def prepare(self) -> None:
        self.width = 16
        self.body = nn.Conv2d(16, 16, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        assert h.shape[1] == self.width
        return self.body(h)


class AssertedInTheCode(Sandwich):
    def prepare(self) -> None:
        self.body = nn.Conv2d(16, 16, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        if h.shape[1] != 16:
            raise ValueError(f"16 channels, not {h.shape[1]}")
        return self.body(h)


class SkippedWhereWide(Sandwich):
    def prepare(self) -> None:
        self.body = nn.Conv2d(16, 16, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return self.body(h) + h if h.size(1) >= 16 else self.body(h)


class SkippedByALayer(Sandwich):
    """A residual where two layers agree, as they no longer may."""

    narrow = 12

    def prepare(self) -> None:
        self.first, self.second = nn.Conv2d(16, 12, 1), nn.Conv2d(12, 12, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        y = self.first(h).relu()
        return self.second(y) + y if self.second.out_channels == 12 else self.second(y)


class Sampled(nn.Module):
    """A variational autoencoder: mean and deviation meet in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.moments = nn.Linear(12, 20), nn.Linear(20, 16)
        self.decode, self.head = nn.Linear(8, 20), nn.Linear(20, 12)
        self.latent_dim = 8

    def forward(self, x: torch.Tensor) -> Any:
        moments = self.moments(self.encode(x).relu())
        mean, spread = moments[..., : self.latent_dim], moments[..., self.latent_dim :]
        latent = mean
        if self.training:
            latent = mean + torch.randn_like(mean) * torch.exp(0.5 * spread)
        return self.head(self.decode(latent).relu()), mean, spread


class TokensOfEachExpert(nn.Module):
    """Tokens are picked out for their experts, and added where they came from."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 16
        self.embed, self.router = nn.Linear(12, 16), nn.Linear(16, 4)
        self.experts = nn.ModuleList(
            [nn.Sequential(nn.Linear(16, 20), nn.GELU(), nn.Linear(20, 16)) for _ in range(4)]
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x)
        flat = h.view(-1, self.hidden)
        weights, chosen = torch.topk(self.router(flat).softmax(-1), 2)
        out = torch.zeros((flat.shape[0], self.hidden), dtype=flat.dtype)
        mask = F.one_hot(chosen, 4).permute(2, 1, 0)
        for k, expert in enumerate(self.experts):
            place, token = torch.where(mask[k])
            tokens = flat[None, token].reshape(-1, self.hidden)
            out.index_add_(0, token, expert(tokens) * weights[token, place, None])
        result: torch.Tensor = self.head(out.reshape(h.shape) + h)
        return result


class Pointer(nn.Module):
    """A cell that begins with zeros in the width of its input, written in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.cell = nn.GRU(12, 10, batch_first=True), nn.GRUCell(12, 10)
        self.keys, self.query = nn.Linear(10, 8, bias=False), nn.Linear(10, 8, bias=False)
        self.score = nn.Linear(8, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keys, last = self.encode(x)
        state, given, found = last[0], torch.zeros(x.size(0), 12), []
        for _ in range(3):
            state = self.cell(given, state)
            score = self.score(torch.tanh(self.keys(keys) + self.query(state).unsqueeze(1)))
            weights = score.squeeze(-1).softmax(-1)
            found.append(weights)
            given = torch.bmm(weights.unsqueeze(1), x).squeeze(1)
        return torch.stack(found, 1)


class TurnedByComplexNumbers(nn.Module):
    """Rotary positions as complex numbers that no buffer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.query, self.key, self.value = (nn.Linear(12, 24) for _ in range(3))
        self.out = nn.Linear(24, 12)
        rates = torch.outer(torch.arange(16).float(), 1e4 ** -(torch.arange(3) / 3))
        self.turns = torch.polar(torch.ones(16, 3), rates)

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(batch, tokens, heads, size)`` turned by each token's position."""
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.turns[: x.shape[1]].view(1, -1, 1, 3)).flatten(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            layer(x).view(*x.shape[:2], self.heads, -1)
            for layer in (self.query, self.key, self.value)
        )
        q, k, v = (each.transpose(1, 2) for each in (self.turned(q), self.turned(k), v))
        weights = torch.softmax(q @ k.mT / 6**0.5, -1)
        result: torch.Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return result


class RoutedFromZeros(nn.Module):
    """Routing between capsules; its first softmax is of zeros, so a graph holds its result."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(12, 8), nn.Linear(10, 3)
        self.votes_weight = nn.Parameter(torch.randn(1, 5, 6, 10, 8) * 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        votes = (self.votes_weight @ self.embed(x)[:, :, None, :, None]).squeeze(-1)
        logits = torch.zeros(x.shape[0], 5, 6)
        for _ in range(2):
            poses = (logits.softmax(2)[..., None] * votes).sum(1).tanh()
            logits = logits + (votes * poses[:, None]).sum(-1)
        result: torch.Tensor = self.head(poses).sum(1)
        return result


def specimens() -> Iterator[Specimen]:
    """Yield the networks of this kind."""
    networks = (Asserted, AssertedInTheCode, SkippedWhereWide, SkippedByALayer)
    yield from of_images("choices", networks)
    for network in (Sampled, TokensOfEachExpert, Pointer, TurnedByComplexNumbers, RoutedFromZeros):
        yield Specimen(network.__name__, "adversarial/choices", partial(_built, network))


def _built(network: type[nn.Module]) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    return network().eval(), (torch.randn(2, 5, 12),)
