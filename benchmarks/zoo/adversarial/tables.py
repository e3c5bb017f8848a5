"""Tables that no buffer holds: arrays, tensors, lists of numbers and of positions, in dicts and lists."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from benchmarks.zoo.adversarial.sandwich import Sandwich, of_images
from benchmarks.zoo.specimen import Specimen


class ScaledByAnArray(Sandwich):
    def prepare(self) -> None:
        self.scale = np.linspace(0.5, 2.0, 16).astype("float32").reshape(1, 16, 1, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h * torch.from_numpy(self.scale)


class MeansInAList(Sandwich):
    def prepare(self) -> None:
        self.means = [0.1 * k for k in range(16)]

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return (h - torch.tensor(self.means).view(1, -1, 1, 1)).tanh()


class ComputedFromATensor(Sandwich):
    """What meets the channels is computed from a tensor that is an attribute and no buffer."""

    def prepare(self) -> None:
        self.phases = torch.rand(1, 16, 1, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h * (2 * self.phases + 1).cos()


class CountedInTheCode(nn.Module):
    """A table that the code counts off, of which no attribute knows: it can only be refused."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = torch.arange(4).view(1, 4, 1, 1) / 3 + 0.5
        result: torch.Tensor = self.head(self.stem(x) * table)
        return result


class IndicesInAnArray(Sandwich):
    narrow = 6

    def prepare(self) -> None:
        self.keep = np.array([0, 3, 4, 7, 9, 15])

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, self.keep]


class MaskInAnArray(Sandwich):
    narrow = 8

    def prepare(self) -> None:
        self.keep = np.arange(16) % 2 == 0

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, self.keep]


class MaskInAList(Sandwich):
    narrow = 8

    def prepare(self) -> None:
        self.keep = [k % 2 == 1 for k in range(16)]

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, self.keep]


class GroupsInADict(Sandwich):
    narrow = 6

    def prepare(self) -> None:
        self.groups = {"low": [0, 3, 5], "high": [7, 9, 15]}

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return torch.cat([h[:, self.groups["low"]].tanh(), h[:, self.groups["high"]]], 1)


class GroupsInAListOfTensors(Sandwich):
    narrow = 6

    def prepare(self) -> None:
        self.groups = [torch.tensor([0, 3, 5]), torch.tensor([7, 9, 15])]

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return torch.cat([h[:, each] * (k + 1) for k, each in enumerate(self.groups)], 1)


class ZerosOfAShapeBeside(Sandwich):
    """Zeros in the sizes of the channels, but apart from them."""

    narrow = 32

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return torch.cat([h, torch.zeros(h.shape)], 1)


def specimens() -> Iterator[Specimen]:
    """Yield the networks of this kind."""
    networks = (
        ScaledByAnArray, MeansInAList, ComputedFromATensor, CountedInTheCode, IndicesInAnArray,
        MaskInAnArray, MaskInAList, GroupsInADict, GroupsInAListOfTensors, ZerosOfAShapeBeside,
    )  # fmt: skip
    yield from of_images("tables", networks)
