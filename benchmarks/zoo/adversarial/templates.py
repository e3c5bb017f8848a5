"""Tensors that are made as large as another one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.zoo.adversarial.sandwich import Sandwich, of_images
from benchmarks.zoo.specimen import Specimen


class ConvolutionalCell(Sandwich):
    """A recurrent cell over two steps, whose state begins as zeros like its input."""

    def prepare(self) -> None:
        self.gate = nn.Conv2d(32, 16, 3, padding=1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        state = torch.zeros_like(h)
        for _ in range(2):
            state = torch.tanh(self.gate(torch.cat([h, state], 1)))
        return state


class ConvolutionalLSTM(Sandwich):
    def prepare(self) -> None:
        self.gates = nn.Conv2d(32, 64, 3, padding=1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        hidden, cell = torch.zeros_like(h), torch.zeros_like(h)
        for _ in range(2):
            i, f, o, g = self.gates(torch.cat([h, hidden], 1)).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        return hidden


class ConvolutionalGRU(Sandwich):
    def prepare(self) -> None:
        self.gates = nn.Conv2d(32, 32, 3, padding=1)
        self.candidate = nn.Conv2d(32, 16, 3, padding=1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        state = h.new_zeros(h.shape)
        for _ in range(2):
            update, reset = self.gates(torch.cat([h, state], 1)).sigmoid().chunk(2, 1)
            new = self.candidate(torch.cat([h, reset * state], 1)).tanh()
            state = (1 - update) * state + update * new
        return state


class StateByAttribute(Sandwich):
    """The state's width is an attribute, as in most published ConvLSTMs."""

    def prepare(self) -> None:
        self.hidden = 12
        self.gates = nn.Conv2d(28, 48, 3, padding=1)

    narrow = 12

    def between(self, h: torch.Tensor) -> torch.Tensor:
        b, _, height, width = h.shape
        hidden = cell = torch.zeros(b, self.hidden, height, width)
        for _ in range(2):
            mixed = self.gates(torch.cat([h, hidden], 1))
            i, f, o, g = torch.split(mixed, self.hidden, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        return hidden


class OnesLike(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h / (torch.ones_like(h) + h)


class FullLike(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return torch.maximum(h, torch.full_like(h, 0.3))


class NewFull(Sandwich):
    narrow = 32

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return torch.cat([h, h.new_full(h.shape, 0.5) * h.tanh()], 1)


class PaddedWithZerosLike(Sandwich):
    """The shortcut of a widening block: zeros beside the channels."""

    def prepare(self) -> None:
        self.mix = nn.Conv2d(16, 32, 3, padding=1)

    narrow = 32

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return self.mix(h) + torch.cat([h, torch.zeros_like(h)], 1)


class ZerosOfAShape(Sandwich):
    narrow = 32

    def prepare(self) -> None:
        self.mix = nn.Conv2d(32, 32, 3, padding=1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return self.mix(torch.cat([torch.zeros(h.shape), h], 1)).tanh()


class ZerosOfItsSizes(Sandwich):
    def prepare(self) -> None:
        self.gate = nn.Conv2d(32, 16, 3, padding=1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        b, c, height, width = h.shape
        state = torch.zeros(b, c, height, width)
        for _ in range(2):
            state = torch.tanh(self.gate(torch.cat([h, state], 1)))
        return state


class ZerosByLiteral(Sandwich):
    def prepare(self) -> None:
        self.gate = nn.Conv2d(28, 12, 3, padding=1)

    narrow = 12

    def between(self, h: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(h.shape[0], 12, 6, 6)
        for _ in range(2):
            state = torch.tanh(self.gate(torch.cat([h, state], 1)))
        return state


class ExpandedAs(Sandwich):
    def prepare(self) -> None:
        self.level = nn.Parameter(torch.rand(1, 1, 1, 1))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return torch.where(h > 0.2, h, self.level.expand_as(h))


class PaddedChannels(Sandwich):
    """The other shortcut of a widening block: padding with a literal width."""

    def prepare(self) -> None:
        self.mix = nn.Conv2d(16, 24, 3, padding=1)

    narrow = 24

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return self.mix(h) + F.pad(h, (0, 0, 0, 0, 4, 4))


class EmptyThenFilled(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        level = torch.empty_like(h).fill_(0.25)
        return h * level + h.tanh()


def specimens() -> Iterator[Specimen]:
    """Yield the networks of this kind."""
    yield from of_images(
        "templates",
        (
            ConvolutionalCell, ConvolutionalLSTM, ConvolutionalGRU, StateByAttribute, OnesLike,
            FullLike, NewFull, PaddedWithZerosLike, ZerosOfAShape, ZerosOfItsSizes, ZerosByLiteral,
            ExpandedAs, PaddedChannels, EmptyThenFilled,
        ),
    )  # fmt: skip
