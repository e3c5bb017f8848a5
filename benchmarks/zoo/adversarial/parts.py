"""Parts of tensors: prefixes of wider weights, ranges of channels with bounds in the code."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.zoo.adversarial.sandwich import Sandwich, of_images
from benchmarks.zoo.specimen import Specimen


class PrefixOfAWeight(Sandwich):
    """A slimmable convolution at half of its width."""

    def prepare(self) -> None:
        self.wide_weight = nn.Parameter(torch.randn(32, 16, 3, 3))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return F.conv2d(h, self.wide_weight[:16], padding=1).relu()


class PrefixOfBothAxes(Sandwich):
    """Two slimmable layers in a row: both channels of the second are prefixes."""

    def prepare(self) -> None:
        self.first_weight = nn.Parameter(torch.randn(32, 16, 1, 1))
        self.second_weight = nn.Parameter(torch.randn(32, 32, 1, 1))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        h = F.conv2d(h, self.first_weight[:12]).relu()
        return F.conv2d(h, self.second_weight[:16, :12]).relu()


class PrefixByAnAttribute(Sandwich):
    def prepare(self) -> None:
        self.width = 16
        self.wide_weight = nn.Parameter(torch.randn(32, 16, 3, 3))
        self.wide_bias = nn.Parameter(torch.randn(32))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        weight, bias = self.wide_weight[: self.width], self.wide_bias[: self.width]
        return F.conv2d(h, weight, bias, padding=1).relu()


class PrefixOfANorm(Sandwich):
    """Switchable batch norm statistics, of which the first are used."""

    def prepare(self) -> None:
        self.norm = nn.BatchNorm2d(24)
        self.mix = nn.Conv2d(16, 24, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        n = self.norm
        weight, bias = self.mix.weight[:16], self.mix.bias[:16]
        h = F.conv2d(h, weight, bias)
        return F.batch_norm(h, n.running_mean[:16], n.running_var[:16], n.weight[:16], n.bias[:16])


class NarrowedWeight(Sandwich):
    def prepare(self) -> None:
        self.wide_weight = nn.Parameter(torch.randn(20, 32))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        weight = self.wide_weight.narrow(0, 2, 16).narrow(1, 4, 16)
        return F.linear(h.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2).tanh()


class MiddleOfTheChannels(Sandwich):
    narrow = 8

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, 4:12]


class TwoOverlappingRanges(Sandwich):
    narrow = 20

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return torch.cat([h[:, :10], h[:, 6:].tanh()], 1)


class LastChannels(Sandwich):
    narrow = 12

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return torch.cat([h[:, -5:], h[:, 2:-7]], 1)


class HalvesByLiteral(Sandwich):
    """A gate: one half of the channels multiplies the other."""

    narrow = 8

    def between(self, h: torch.Tensor) -> torch.Tensor:
        a, b = h[:, :8], h[:, 8:]
        return a * b.sigmoid()


class HalvesByChunk(Sandwich):
    narrow = 8

    def between(self, h: torch.Tensor) -> torch.Tensor:
        a, b = h.chunk(2, 1)
        return a * b.sigmoid()


class UnevenSplit(Sandwich):
    narrow = 22

    def prepare(self) -> None:
        self.mix = nn.Conv2d(6, 12, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        a, b = h.split([6, 10], 1)
        return torch.cat([self.mix(a), b], 1)


class EveryOther(Sandwich):
    narrow = 8

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, ::2] - h[:, 1::2]


class Rolled(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h + h.roll(5, 1).sigmoid()


class GroupsByLiteral(Sandwich):
    """A channel shuffle with its sizes written down."""

    def between(self, h: torch.Tensor) -> torch.Tensor:
        b = h.shape[0]
        return h.view(b, 4, 4, 6, 6).transpose(1, 2).reshape(b, 16, 6, 6)


class MaxoutByView(Sandwich):
    narrow = 8

    def between(self, h: torch.Tensor) -> torch.Tensor:
        b, _, height, width = h.shape
        return h.view(b, 8, 2, height, width).max(2).values


class CroppedKernel(Sandwich):
    """An elastic kernel: the middle of a wide one."""

    def prepare(self) -> None:
        self.wide_weight = nn.Parameter(torch.randn(16, 16, 5, 5))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return F.conv2d(h, self.wide_weight[:, :, 1:4, 1:4], padding=1).relu()


def specimens() -> Iterator[Specimen]:
    """Yield the networks of this kind."""
    yield from of_images(
        "parts",
        (
            PrefixOfAWeight, PrefixOfBothAxes, PrefixByAnAttribute, PrefixOfANorm, NarrowedWeight,
            MiddleOfTheChannels, TwoOverlappingRanges, LastChannels, HalvesByLiteral, HalvesByChunk,
            UnevenSplit, EveryOther, Rolled, GroupsByLiteral, MaxoutByView, CroppedKernel,
        ),
    )  # fmt: skip
