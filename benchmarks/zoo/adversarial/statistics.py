"""Statistics over channels, some with the number of channels in them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.zoo.adversarial.sandwich import Sandwich, of_images
from benchmarks.zoo.specimen import Specimen


class WeightStandardisation(Sandwich):
    """A convolution whose weight has mean 0 and standard deviation 1 in each output channel."""

    def prepare(self) -> None:
        self.mix_weight = nn.Parameter(torch.randn(16, 16, 3, 3))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        w = self.mix_weight
        w = w - w.mean((1, 2, 3), keepdim=True)
        w = w / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(h, w, padding=1).tanh()


class WeightStandardisationAtOnce(Sandwich):
    def prepare(self) -> None:
        self.mix_weight = nn.Parameter(torch.randn(16, 16, 1, 1))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(self.mix_weight, (1, 2, 3), keepdim=True)
        return F.conv2d(h, (self.mix_weight - mean) * torch.rsqrt(variance + 1e-5)).tanh()


class DeviationOfChannels(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h / (h.std(1, keepdim=True) + 1)


class BiasedVariance(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h / (h.var(1, unbiased=False, keepdim=True) + 1).sqrt()


class VarianceOfAll(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h / (h.var((1, 2, 3), keepdim=True) + 1)


class LayerNormByHand(Sandwich):
    def prepare(self) -> None:
        self.gain = nn.Parameter(torch.ones(1, 16, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, 16, 1, 1))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        mean = h.mean(1, keepdim=True)
        variance = (h - mean).pow(2).mean(1, keepdim=True)
        return (h - mean) / (variance + 1e-5).sqrt() * self.gain + self.shift


class PixelNorm(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h * torch.rsqrt(h.pow(2).mean(1, keepdim=True) + 1e-5)


class UnitLength(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return F.normalize(h, dim=1) + F.normalize(h, p=1, dim=1)


class SoftChannels(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h * h.softmax(1) + h.logsumexp(1, keepdim=True)


class GroupsThatStay(Sandwich):
    def prepare(self) -> None:
        self.norm = nn.GroupNorm(4, 16)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return self.norm(h)


class ResponseNorm(Sandwich):
    """Global response normalisation: each channel's energy over the mean of all."""

    def prepare(self) -> None:
        self.gain = nn.Parameter(torch.rand(1, 16, 1, 1))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        energy = h.norm(dim=(2, 3), keepdim=True)
        return h + self.gain * h * (energy / (energy.mean(1, keepdim=True) + 1e-6))


class ChannelDemodulation(Sandwich):
    """Each filter is divided by its length over the channels it reads."""

    def prepare(self) -> None:
        self.mix_weight = nn.Parameter(torch.randn(16, 16, 3, 3))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        w = self.mix_weight
        return F.conv2d(h, w * torch.rsqrt(w.pow(2).sum((1, 2, 3), keepdim=True) + 1e-8), padding=1)


def specimens() -> Iterator[Specimen]:
    """Yield the networks of this kind."""
    yield from of_images(
        "statistics",
        (
            WeightStandardisation, WeightStandardisationAtOnce, DeviationOfChannels, BiasedVariance,
            VarianceOfAll, LayerNormByHand, PixelNorm, UnitLength, SoftChannels, GroupsThatStay,
            ResponseNorm, ChannelDemodulation,
        ),
    )  # fmt: skip
