"""Recurrent layers and PyTorch's own transformer layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.zoo.specimen import Inputs, Specimen


class Tagger(nn.Module):
    """Embedding, recurrent layers, projection: a part-of-speech tagger."""

    def __init__(self, layer: Callable[..., nn.Module], **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.recurrent = layer(16, 24, batch_first=True, **options)
        width = 48 if options.get("bidirectional") else 24
        self.head = nn.Linear(int(options.get("proj_size") or width), 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.recurrent(self.embed(tokens))[0])
        return out


class Summary(nn.Module):
    """Convolutions, a recurrent layer over time, and its last hidden state: a sound classifier."""

    def __init__(self, layer: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(8, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU())
        self.recurrent = layer(16, 24, num_layers=2)
        self.head = nn.Linear(24, 10)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        state = self.recurrent(self.conv(sound).permute(2, 0, 1))[1]
        last = state[0] if isinstance(state, tuple) else state
        out: torch.Tensor = self.head(last[-1])
        return out


def specimens() -> Iterator[Specimen]:
    """Yield recurrent taggers and classifiers, and PyTorch's transformer modules."""
    for name, layer in (("LSTM", nn.LSTM), ("GRU", nn.GRU), ("RNN", nn.RNN)):
        for suffix, options in _VARIANTS.items():
            if "proj_size" in options and name != "LSTM":
                continue
            yield Specimen(f"{name} {suffix}", "recurrent", partial(_tagger, layer, options))
        yield Specimen(f"{name} over a convolution", "recurrent", partial(_summary, layer))
    yield Specimen("TransformerEncoder", "torch.nn", _encoder)
    yield Specimen("TransformerDecoder", "torch.nn", _decoder)
    yield Specimen("Transformer", "torch.nn", _transformer)


_VARIANTS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
    "projected": {"proj_size": 12},
}


def _tagger(layer: Callable[..., nn.Module], options: dict[str, Any]) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    return Tagger(layer, **options).eval(), (torch.arange(14).reshape(2, 7),)


def _summary(layer: Callable[..., nn.Module]) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    return Summary(layer).eval(), (torch.randn(2, 8, 9),)


def _encoder() -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), (
        torch.randn(2, 5, 32),
    )


def _decoder() -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True)
    return nn.TransformerDecoder(layer, 2).eval(), (torch.randn(2, 5, 32), torch.randn(2, 6, 32))


def _transformer() -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    return nn.Transformer(32, 4, 2, 2, 64).eval(), (torch.randn(5, 2, 32), torch.randn(6, 2, 32))
