"""What a convolution's kernel sees at each of its positions: patches, some of them or all."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution, one entry a spatial axis.

    ``more`` is what a transposed convolution adds to one side of its output; ``None`` for a plain one.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    more: tuple[int, ...] | None = None


def sampled(count: int, most: int, device: torch.device) -> torch.Tensor:
    """Return at most ``most`` of ``count`` positions in order, the same ones at each call."""
    if count <= most:
        return torch.arange(count, device=device)
    generator = torch.Generator().manual_seed(count)
    return torch.randint(count, (most,), generator=generator).sort().values.to(device)


class Rows:
    """The rows that a weight is multiplied with, of a tensor with its features last.

    ``count`` of them: one for each position, which for a ``window`` is one of the convolution's output.
    """

    def __init__(self, tensor: torch.Tensor, window: Window | None) -> None:
        self.tensor, self.window = tensor, window
        if window is None:
            self.positions = tuple(tensor.shape[:-1])
        else:
            if tensor.dim() == len(window.kernel) + 1:
                tensor = tensor[None]
            self.tensor, steps = _padded(tensor.movedim(-1, 1), window)
            spans = [d * (k - 1) + 1 for k, d in zip(window.kernel, window.dilation, strict=True)]
            sizes = [
                (size - span) // step + 1
                for size, span, step in zip(self.tensor.shape[2:], spans, steps, strict=True)
            ]
            self.positions = (len(tensor), *sizes)
            self._steps = steps
        self.count = prod(self.positions)

    def at(self, index: torch.Tensor) -> torch.Tensor:
        """Return the rows at some positions, shape ``(rows, features, taps of the kernel)``."""
        x = self.tensor
        if self.window is None:
            return x.reshape(-1, x.shape[-1])[index][..., None]
        batch, channel, *spatial = x.stride()
        moves = [s * step for s, step in zip(spatial, self._steps, strict=True)]
        taps = [s * d for s, d in zip(spatial, self.window.dilation, strict=True)]
        view = x.as_strided(
            (*self.positions, x.shape[1], *self.window.kernel),
            (batch, *moves, channel, *taps),
            x.storage_offset(),
        )
        where: list[torch.Tensor] = []
        for size in reversed(self.positions):
            where.append(index % size)
            index = index // size
        patches = view[tuple(where[::-1])]
        if self.window.more is not None:
            patches = patches.flip(tuple(range(2, patches.dim())))
        return patches.flatten(2)


def _padded(x: torch.Tensor, window: Window) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Return the input with its borders, and the steps of the kernel over it.

    A transposed convolution is one with the flipped kernel over its input with zeros in between.
    """
    sides = [(p, p) for p in window.padding]
    steps = window.stride
    if window.more is not None:
        sizes = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], window.stride, strict=True)]
        spread = x.new_zeros((*x.shape[:2], *sizes))
        places = [slice(None), slice(None), *(slice(None, None, s) for s in window.stride)]
        spread[tuple(places)] = x
        x, steps = spread, (1,) * len(sizes)
        reach = [d * (k - 1) for k, d in zip(window.kernel, window.dilation, strict=True)]
        sides = [
            (r - p, r - p + more)
            for r, p, more in zip(reach, window.padding, window.more, strict=True)
        ]
    if any(side for pair in sides for side in pair):
        x = F.pad(x, [side for pair in reversed(sides) for side in pair])
    return x, steps
