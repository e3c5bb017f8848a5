"""Writes into a part of a tensor."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.zoo.adversarial.sandwich import Sandwich, of_images
from benchmarks.zoo.specimen import Specimen


class FirstHalfReplaced(Sandwich):
    def prepare(self) -> None:
        self.mix = nn.Conv2d(8, 8, 3, padding=1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        y = h.clone()
        y[:, :8] = self.mix(h[:, :8])
        return y


class SecondHalfScaled(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        y = h.clone()
        y[:, 8:] *= 0.5
        return y


class MiddleFilled(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        y = h.clone()
        y[:, 5:9] = 0.7
        return y


class FilledAtIndices(Sandwich):
    def prepare(self) -> None:
        self.register_buffer("places", torch.tensor([2, 3, 8, 13]))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        y = h.clone()
        y[:, self.places] = 0.7
        return y


class EveryOtherReplaced(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        y = h.clone()
        y[:, ::2] = h[:, 1::2].tanh()
        return y


class ShiftedInTime(Sandwich):
    """Temporal shift: parts of the channels move by one position."""

    def between(self, h: torch.Tensor) -> torch.Tensor:
        y = torch.zeros_like(h)
        y[:, :4, 1:] = h[:, :4, :-1]
        y[:, 4:8, :-1] = h[:, 4:8, 1:]
        y[:, 8:] = h[:, 8:]
        return y


class CopiedIntoZeros(Sandwich):
    """A wide tensor of zeros takes a narrow one."""

    narrow = 24

    def prepare(self) -> None:
        self.mix = nn.Conv2d(24, 24, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        y = torch.zeros(h.shape[0], 24, 6, 6)
        y[:, 4:20] = h
        return self.mix(y)


class SliceScattered(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return torch.slice_scatter(h, h[:, 4:10].sigmoid(), 1, 4, 10)


class IndexFilled(Sandwich):
    def prepare(self) -> None:
        self.register_buffer("places", torch.tensor([0, 6, 7, 15]))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h.index_fill(1, self.places, 0.2)


class MaskedByABuffer(Sandwich):
    def prepare(self) -> None:
        self.register_buffer("hidden", (torch.arange(16) % 3 == 0).reshape(1, 16, 1, 1))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h.masked_fill(self.hidden, 0.4)


class AddedInPlace(Sandwich):
    def prepare(self) -> None:
        self.mix = nn.Conv2d(16, 16, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        y = self.mix(h)
        y[:, 3:11].add_(h[:, 3:11]).tanh_()
        return y


def specimens() -> Iterator[Specimen]:
    """Yield the networks of this kind."""
    yield from of_images(
        "writes",
        (
            FirstHalfReplaced, SecondHalfScaled, MiddleFilled, FilledAtIndices, EveryOtherReplaced,
            ShiftedInTime, CopiedIntoZeros, SliceScattered, IndexFilled, MaskedByABuffer,
            AddedInPlace,
        ),
    )  # fmt: skip
