"""Recurrent cells that a loop unrolls."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from benchmarks.zoo.specimen import Inputs, Specimen


class OneCell(nn.Module):
    """Sequences through one cell, whose state begins as nothing or as zeros."""

    def __init__(self, cell: type[nn.RNNCellBase], begins: str = "none") -> None:
        super().__init__()
        self.embed = nn.Linear(6, 10)
        self.cell = cell(10, 12)  # type: ignore[call-arg]
        self.head = nn.Linear(12, 4)
        self.begins = begins

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = None
        if self.begins == "zeros":
            zeros = x.new_zeros(x.shape[0], self.cell.hidden_size)
            state = (zeros, zeros) if isinstance(self.cell, nn.LSTMCell) else zeros
        for step in self.embed(x).tanh().unbind(1):
            state = self.cell(step, state)
        out: torch.Tensor = self.head(state[0] if isinstance(state, tuple) else state)
        return out


class Stacked(nn.Module):
    """One cell feeds another at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.GRUCell(6, 10), nn.LSTMCell(10, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = up = None
        for step in x.unbind(1):
            low = self.lower(step, low)
            up = self.upper(low, up)
        assert up is not None
        out: torch.Tensor = self.head(up[0])
        return out


class LearnedState(nn.Module):
    """The state begins as a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(6, 12), nn.Linear(12, 4)
        self.start = nn.Parameter(torch.randn(1, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = self.start.expand(x.shape[0], -1)
        for step in x.unbind(1):
            state = self.cell(step, state)
        out: torch.Tensor = self.head(state)
        return out


def specimens() -> Iterator[Specimen]:
    """Yield the networks of this kind."""
    for cell in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
        for begins in ("none", "zeros"):
            build = partial(_built, partial(OneCell, cell, begins))
            yield Specimen(f"{cell.__name__} from {begins}", "adversarial/cells", build)
    yield Specimen("Stacked", "adversarial/cells", partial(_built, Stacked))
    yield Specimen("LearnedState", "adversarial/cells", partial(_built, LearnedState))


def _built(network: partial[nn.Module] | type[nn.Module]) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    return network().eval(), (torch.randn(2, 3, 6),)
