"""Tensors that a module computed once and keeps in a plain dict."""

from __future__ import annotations

import torch
from torch import nn

from torchpruner_core import CutResult
from torchpruner_core.pruning import recovery_cut, set_cut


class Scaled(nn.Module):
    """A linear layer whose scale is computed from a parameter once in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.scale = nn.Parameter(torch.rand(6))
        self.cache: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        key = str(x.device)
        if key not in self.cache:
            self.cache[key] = self.scale.detach().exp()
        return self.linear(x) * self.cache[key]


def test_a_cache_of_what_is_cut_is_computed_anew_and_comes_back() -> None:
    model, x = Scaled().eval(), torch.rand(2, 4)
    before = model(x)
    cached = model.cache
    cut = CutResult.from_dict(
        {
            "terminal": {
                "self.linear.weight": [[1], None],
                "self.linear.bias": [[1]],
                "self.scale": [[1]],
            }
        }
    )
    _, context = set_cut(model, cut)
    assert torch.allclose(model(x), before[:, [0, 2, 3, 4, 5]])
    recovery_cut(model, cut, context)
    assert model.cache is cached
    assert torch.equal(model(x), before)
