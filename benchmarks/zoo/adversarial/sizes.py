"""Sizes that the code computes with."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.zoo.adversarial.sandwich import Sandwich, of_images
from benchmarks.zoo.specimen import Specimen


class SumOverSize(Sandwich):
    """A mean written as a sum and a division."""

    narrow = 1

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h.sum(1, keepdim=True) / h.shape[1]


class EqualisedLearningRate(Sandwich):
    """A weight is scaled by its fan-in as it is used."""

    def prepare(self) -> None:
        self.mix_weight = nn.Parameter(torch.randn(16, 16, 1, 1))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return F.conv2d(h, self.mix_weight * (2 / self.mix_weight.shape[1]) ** 0.5).relu()


class NormOverRoot(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h / (h.norm(dim=1, keepdim=True) / math.sqrt(h.shape[1]) + 0.1)


class RootMeanSquareByHand(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h * torch.rsqrt(h.pow(2).sum(1, keepdim=True) / h.size(1) + 1e-5)


class AttentionOverPositions(Sandwich):
    """Attention whose scale is read off its keys."""

    def prepare(self) -> None:
        self.q, self.k, self.v = (nn.Linear(16, width) for width in (12, 12, 16))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        tokens = h.flatten(2).transpose(1, 2)
        q, k, v = self.q(tokens), self.k(tokens), self.v(tokens)
        weights = (q @ k.transpose(1, 2) / math.sqrt(k.shape[-1])).softmax(-1)
        return (weights @ v).transpose(1, 2).reshape(h.shape)


class FusedAttention(Sandwich):
    def prepare(self) -> None:
        self.q, self.k, self.v = (nn.Linear(16, width) for width in (12, 12, 16))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        tokens = h.flatten(2).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(self.q(tokens), self.k(tokens), self.v(tokens))
        return mixed.transpose(1, 2).reshape(h.shape)


class ScaledByAnAttribute(Sandwich):
    """The number was computed when the module was made, and stays."""

    def prepare(self) -> None:
        self.scale = 16**-0.5
        self.mix = nn.Conv2d(16, 16, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return self.mix(h * self.scale).relu()


class FilledWithASize(Sandwich):
    narrow = 1

    def between(self, h: torch.Tensor) -> torch.Tensor:
        share = torch.full((1, 1, 1, 1), 1 / h.shape[1])
        return h.sum(1, keepdim=True) * share


class DepthOfAWeight(Sandwich):
    def prepare(self) -> None:
        self.mix = nn.Linear(16, 12)

    narrow = 12

    def between(self, h: torch.Tensor) -> torch.Tensor:
        mixed = self.mix(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return mixed.tanh() * math.log(len(self.mix.weight))


class NumberOfElements(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h * (h.numel() / h.shape[0] / 36) ** -0.5


class ChannelPositions(Sandwich):
    """Each channel has a position, counted as the code runs."""

    def between(self, h: torch.Tensor) -> torch.Tensor:
        position = torch.arange(h.shape[1]) / 16
        return h + position.reshape(1, -1, 1, 1).sin()


class TemperatureOfAWidth(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h * (h / h.shape[1] ** 0.5).sigmoid()


def specimens() -> Iterator[Specimen]:
    """Yield the networks of this kind."""
    yield from of_images(
        "sizes",
        (
            SumOverSize, EqualisedLearningRate, NormOverRoot, RootMeanSquareByHand,
            AttentionOverPositions, FusedAttention, ScaledByAnAttribute, FilledWithASize,
            DepthOfAWeight, NumberOfElements, ChannelPositions, TemperatureOfAWidth,
        ),
    )  # fmt: skip
