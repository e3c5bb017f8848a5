"""Channels that are addressed by indices: in buffers, in attributes, in the code."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.zoo.adversarial.sandwich import Sandwich, of_images
from benchmarks.zoo.specimen import Specimen

KEPT = [0, 2, 3, 5, 7, 8, 9, 12, 13, 15]


class KeptChannels(Sandwich):
    """What network slimming leaves: the channels that the next layer reads."""

    narrow = 10

    def prepare(self) -> None:
        self.register_buffer("keep", torch.tensor(KEPT))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h.index_select(1, self.keep)


class Permuted(Sandwich):
    def prepare(self) -> None:
        self.register_buffer("order", torch.randperm(16))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, self.order]


class PermutedInTheLastAxis(Sandwich):
    def prepare(self) -> None:
        self.register_buffer("order", torch.randperm(16))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h.permute(0, 2, 3, 1)[..., self.order].permute(0, 3, 1, 2)


class PermutedThereAndBack(Sandwich):
    """Two buffers that undo each other, with a depthwise convolution between."""

    def prepare(self) -> None:
        order = torch.randperm(16)
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())
        self.mix = nn.Conv2d(16, 16, 3, padding=1, groups=16)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return self.mix(h[:, self.order])[:, self.back] + h


class PermutedRowsOfAWeight(Sandwich):
    def prepare(self) -> None:
        self.mix_weight = nn.Parameter(torch.randn(24, 16, 1, 1))
        self.register_buffer("rows", torch.randperm(24)[:16])

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return F.conv2d(h, self.mix_weight[self.rows]).relu()


class ShuffledByABuffer(Sandwich):
    """A channel shuffle whose order is stored, between grouped convolutions."""

    def prepare(self) -> None:
        self.register_buffer("order", torch.arange(16).reshape(4, 4).t().flatten())
        self.first = nn.Conv2d(16, 16, 1, groups=4)
        self.second = nn.Conv2d(16, 16, 3, padding=1, groups=16)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(h).index_select(1, self.order))


class OneOrderForTwo(Sandwich):
    """One buffer addresses the channels of two tensors."""

    def prepare(self) -> None:
        self.register_buffer("order", torch.randperm(16)[:12])
        self.other = nn.Conv2d(16, 16, 3, padding=1)

    narrow = 24

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return torch.cat([h[:, self.order], self.other(h).tanh()[:, self.order]], 1)


class CountedFromTheEnd(Sandwich):
    narrow = 6

    def prepare(self) -> None:
        self.register_buffer("picked", torch.tensor([-1, 0, -3, 5, -9, 2]))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, self.picked]


class ReadTwice(Sandwich):
    """Some channels are read more than once, some never."""

    narrow = 12

    def prepare(self) -> None:
        self.register_buffer("picked", torch.tensor([0, 0, 3, 3, 3, 7, 9, 10, 12, 14, 14, 15]))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h.index_select(1, self.picked)


class Int32Indices(Sandwich):
    def prepare(self) -> None:
        self.register_buffer("order", torch.randperm(16).to(torch.int32))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h.index_select(1, self.order)


class IndexAdded(Sandwich):
    """A narrow branch is added at stored places of a wide one."""

    def prepare(self) -> None:
        self.register_buffer("places", torch.tensor([1, 4, 6, 7, 11, 14]))
        self.branch = nn.Conv2d(16, 6, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h.index_add(1, self.places, self.branch(h).tanh())


class IndexCopied(Sandwich):
    def prepare(self) -> None:
        self.register_buffer("places", torch.tensor([1, 4, 6, 7, 11, 14]))
        self.branch = nn.Conv2d(16, 6, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h.index_copy(1, self.places, self.branch(h).tanh())


class AddedTwiceAtOnePlace(Sandwich):
    """``index_add`` with repeated places, into zeros."""

    def prepare(self) -> None:
        self.register_buffer("places", torch.arange(16) // 2)
        self.mix = nn.Conv2d(8, 16, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(h.shape[0], 8, *h.shape[2:])
        return self.mix(zeros.index_add(1, self.places, h))


class GatheredChannels(Sandwich):
    def prepare(self) -> None:
        self.register_buffer("order", torch.randperm(16))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        index = self.order.view(1, -1, 1, 1).expand(h.shape[0], -1, *h.shape[2:])
        return h.gather(1, index)


class ScatteredChannels(Sandwich):
    def prepare(self) -> None:
        self.register_buffer("order", torch.randperm(16))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        index = self.order.view(1, -1, 1, 1).expand(h.shape[0], -1, *h.shape[2:])
        return torch.zeros_like(h).scatter(1, index, h)


class QuantisedInGroups(Sandwich):
    """GPTQ's layout: ``g_idx`` says in which group of scales each input feature is."""

    def prepare(self) -> None:
        self.register_buffer("g_idx", torch.randperm(16) % 4)
        self.scales_weight = nn.Parameter(torch.rand(4, 16) + 0.5)
        self.mix_weight = nn.Parameter(torch.randn(16, 16))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        weight = self.mix_weight * self.scales_weight[self.g_idx]
        return F.linear(h.permute(0, 2, 3, 1), weight.t()).permute(0, 3, 1, 2).tanh()


class ActivationOrder(Sandwich):
    """Features are put into the order of a quantised weight before it is applied."""

    def prepare(self) -> None:
        self.register_buffer("order", torch.randperm(16))
        self.mix = nn.Linear(16, 16)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        features = h.permute(0, 2, 3, 1).index_select(-1, self.order)
        return self.mix(features).permute(0, 3, 1, 2).tanh()


class RowsOfATable(Sandwich):
    """A stored list of rows of an embedding is added to the channels."""

    def prepare(self) -> None:
        self.register_buffer("rows", torch.randperm(20)[:16])
        self.table = nn.Embedding(20, 6)
        self.mix = nn.Linear(6, 1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.mix(self.table(self.rows)).reshape(1, 16, 1, 1)


class IndicesInAnAttribute(Sandwich):
    """A plain tensor, which no ``state_dict`` holds."""

    narrow = 10

    def prepare(self) -> None:
        self.keep = torch.tensor(KEPT)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, self.keep]


class IndicesInAList(Sandwich):
    narrow = 10

    def prepare(self) -> None:
        self.keep = list(KEPT)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, self.keep]


class IndicesInTheCode(Sandwich):
    narrow = 5

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, [1, 3, 5, 10, 15]]


class IndicesComputed(Sandwich):
    """The buffer holds half of the index; the code adds the other."""

    narrow = 8

    def prepare(self) -> None:
        self.register_buffer("pairs", torch.randperm(8))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, 2 * self.pairs + 1]


class TableOfIndices(Sandwich):
    """Three channels of each neighbourhood are averaged: a table of indices."""

    narrow = 5

    def prepare(self) -> None:
        self.register_buffer("table", torch.randint(0, 16, (3, 5)))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, self.table].sum(1)


def specimens() -> Iterator[Specimen]:
    """Yield the networks of this kind."""
    yield from of_images(
        "indices",
        (
            KeptChannels, Permuted, PermutedInTheLastAxis, PermutedThereAndBack,
            PermutedRowsOfAWeight, ShuffledByABuffer, OneOrderForTwo, CountedFromTheEnd, ReadTwice,
            Int32Indices, IndexAdded, IndexCopied, AddedTwiceAtOnePlace, GatheredChannels,
            ScatteredChannels, QuantisedInGroups, ActivationOrder, RowsOfATable,
            IndicesInAnAttribute, IndicesInAList, IndicesInTheCode, IndicesComputed, TableOfIndices,
        ),
    )  # fmt: skip
