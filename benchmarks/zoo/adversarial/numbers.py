"""Numbers that are read off a size and end up where no shape shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.zoo.adversarial.sandwich import Sandwich, of_images
from benchmarks.zoo.specimen import Specimen


class RootByNumpy(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h / np.sqrt(h.shape[1])


class TensorOfASize(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h * torch.tensor([[h.shape[1], 3.0]]).sum().rsqrt()


class TensorOfAnArray(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h * torch.tensor(np.array([h.shape[1]], dtype=np.float32))


class MadeOutOfSight(Sandwich):
    """No call with the size is seen: what it was made to is found by its value."""

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h * torch.from_numpy(np.array([h.shape[1] / 8], dtype=np.float32))


class LegacyConstructor(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h / torch.Tensor([h.shape[1]])


class NewTensor(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h.minimum(h.new_tensor(h.shape[1] / 40))


class WholeNumberInWhere(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return torch.where(h > 0.2, h, h.shape[1])


class Threshold(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return F.threshold(h, 0, h.shape[1]).sqrt()


class Interpolation(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return torch.lerp(h, h.tanh(), h.shape[1])


class Shrinkage(Sandwich):
    """The number becomes an attribute of one operator, in a forward that states nothing else."""

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return F.softshrink(h, 2 / h.shape[1])


class Epsilon(Sandwich):
    def prepare(self) -> None:
        self.norm = nn.BatchNorm2d(16)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        n = self.norm
        statistics = (n.running_mean, n.running_var, n.weight, n.bias)
        return F.batch_norm(h, *statistics, eps=1 / h.shape[1])


class KernelOfAWidth(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(h, h.shape[1] // 5, 1, padding=1)


class DilationOfAWidth(Sandwich):
    def prepare(self) -> None:
        self.mix = nn.Conv2d(16, 16, 3)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        step = h.shape[1] // 5
        return F.conv2d(h, self.mix.weight, self.mix.bias, padding=step, dilation=step)


class RolledByAWidth(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h + h.roll(h.shape[1] // 5, 2)


class RowByAWidth(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h + h.select(2, h.shape[1] // 5)[:, :, None]


class OrderOfANorm(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h / (h.norm(h.shape[1] // 8, dim=2, keepdim=True) + 0.1)


class RunningMean(Sandwich):
    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h.cumsum(1) / torch.arange(1, h.shape[1] + 1).view(1, -1, 1, 1)


class PartsTimesBatch(Sandwich):
    """A literal whose correction would hold for one batch size."""

    def prepare(self) -> None:
        self.choose = nn.Linear(16, 3)
        self.kernels = nn.Parameter(torch.randn(3, 16, 16, 3, 3))

    def between(self, h: torch.Tensor) -> torch.Tensor:
        batch, _, height, width = h.shape
        share = self.choose(h.mean((2, 3))).softmax(-1)
        mixed = torch.einsum("bk,koihw->boihw", share, self.kernels).reshape(batch * 16, 16, 3, 3)
        joined = F.conv2d(h.reshape(1, -1, height, width), mixed, padding=1, groups=batch)
        return joined.view(batch, 16, height, width)


class KeptFromTheFirstRun(Sandwich):
    """A table that the first forward makes, in the width of that time."""

    table: torch.Tensor | None

    def prepare(self) -> None:
        self.register_buffer("table", None)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.full((h.shape[1], 1, 1), 0.5)
        return h * self.table


class KeptInADict(Sandwich):
    """What is computed from a weight is kept, in training with its gradient."""

    def prepare(self) -> None:
        self.mix = nn.Parameter(torch.randn(16, 16, 1, 1))
        self.kept: dict[str, Any] = {}

    def between(self, h: torch.Tensor) -> torch.Tensor:
        if self.training or "mix" not in self.kept:
            self.kept["mix"] = self.mix * 2
        return F.conv2d(h, self.kept["mix"])


def specimens() -> Iterator[Specimen]:
    """Yield the networks of this kind."""
    yield from of_images(
        "numbers",
        (
            RootByNumpy, TensorOfASize, TensorOfAnArray, MadeOutOfSight, LegacyConstructor, NewTensor,
            WholeNumberInWhere, Threshold, Interpolation, Shrinkage, Epsilon, KernelOfAWidth,
            DilationOfAWidth, RolledByAWidth, RowByAWidth, OrderOfANorm, RunningMean, PartsTimesBatch,
            KeptFromTheFirstRun, KeptInADict,
        ),
    )  # fmt: skip
