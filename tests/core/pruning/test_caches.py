"""Tensors that a module computed once and keeps in a plain dict."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchpruner_core import CutResult, LiteralInForwardError, ONNXGraph
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


class Lazy(nn.Module):
    """A forward that shapes a table when it first runs, and then features by a literal."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.head = nn.Linear(4, 24), nn.Linear(24, 3)
        self.table: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.linspace(0.5, 2, 4).reshape(4, 1)
        y = self.wide(x).reshape(-1, 4, 6) * self.table
        result: torch.Tensor = self.head(y.flatten(1))
        return result


def test_a_correction_that_counts_calls_of_the_first_run_is_refused_until_the_model_has_run() -> (
    None
):
    model, x = Lazy().eval(), torch.rand(2, 4)
    graph = ONNXGraph(model)
    graph.build_graph((x,), fill_value=False)
    cut = graph.solved.cut_analysis("self.wide.weight", [2], 0, granularity="inner")
    with pytest.raises(LiteralInForwardError, match="a first run alone"):
        set_cut(model, cut, inputs=(x,), correct_forward=True)
    before = model(x)
    _, context = set_cut(model, cut, inputs=(x,), correct_forward=True, verify=True)
    assert torch.equal(model(x), model(x))
    recovery_cut(model, cut, context)
    assert torch.equal(model(x), before)
