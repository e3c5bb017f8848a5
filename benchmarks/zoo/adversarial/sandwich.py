"""What the networks of one kind share: layers around the code in question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import nn

from benchmarks.zoo.specimen import Inputs, Specimen, image


class Sandwich(nn.Module):
    """A convolution, what a subclass does between, and a convolution that reads the result.

    ``wide`` are the channels that go in between and ``narrow`` those that come out of it.
    """

    wide = 16
    narrow = 16

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, self.wide, 3, padding=1)
        self.head = nn.Conv2d(self.narrow, 5, 1)
        self.prepare()

    def prepare(self) -> None:
        """Make what ``between`` needs."""

    def between(self, h: torch.Tensor) -> torch.Tensor:
        """Return ``(batch, narrow, height, width)`` of ``(batch, wide, height, width)``."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.between(self.stem(x).relu()))
        return result


def of_images(kind: str, networks: Iterable[type[nn.Module]]) -> Iterator[Specimen]:
    """Yield specimens of networks that read a small image."""
    for network in networks:
        yield Specimen(network.__name__, f"adversarial/{kind}", partial(_built, network, 6))


def _built(network: type[nn.Module], size: int) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    return network().eval(), image(size)
