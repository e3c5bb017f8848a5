"""One model of the zoo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

Inputs = tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor]

Entrance = Literal["module", "torchscript"]


@dataclass(frozen=True, slots=True)
class Specimen:
    """A model to examine; ``build`` returns it in evaluation mode with its example inputs.

    ``entrance`` is how it becomes a program: the module itself, or its trace.
    """

    name: str
    family: str
    build: Callable[[], tuple[nn.Module, Inputs]]
    entrance: Entrance = "module"

    @property
    def key(self) -> str:
        """A file name for what is known about this model."""
        return f"{self.family}/{self.name}".replace("/", "__")


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Run ``model`` on its example inputs."""
    with torch.no_grad():
        return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def image(size: int, channels: int = 3) -> tuple[torch.Tensor, ...]:
    """One square image of normally distributed pixels."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(1, channels, size, size, generator=generator),)


def clip(frames: int, size: int) -> tuple[torch.Tensor, ...]:
    """One video of square frames."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(1, 3, frames, size, size, generator=generator),)
