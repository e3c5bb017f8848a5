"""Mixtures of experts multiply rows in groups, which PyTorch's kernel takes in whole 16 bytes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torchpruner_core as tp


class Experts(nn.Module):
    """Rows, sorted by the expert that a router chose, each multiplied with its expert's matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.rand(2, 16, 24) - 0.5)
        self.down = nn.Parameter(torch.rand(2, 24, 16) - 0.5)
        self.router = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = self.router(x).argmax(-1)
        order = chosen.argsort(stable=True)
        ends = torch.stack([(chosen <= k).sum() for k in range(2)]).to(torch.int32)
        hidden = torch._grouped_mm(x[order], self.up, offs=ends).relu()
        return torch._grouped_mm(hidden, self.down, offs=ends)[order.argsort()]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.experts, self.last = nn.Linear(8, 16), Experts(), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(x + self.experts(x))  # type: ignore[no-any-return]


X = (torch.rand(6, 8),)


def _cut(model: nn.Module, node: str, index: list[int], dim: int) -> tp.CutResult:
    graph = tp.ONNXGraph(model).build_graph(X, fill_value=False)
    return graph.solved.cut_analysis(node, index, dim)


@pytest.mark.parametrize("node, dim", [("self.experts.up", 2), ("self.first.weight", 0)])
def test_whole_sixteen_bytes_of_experts_are_cut(node: str, dim: int) -> None:
    torch.manual_seed(0)
    model = Network().eval()
    result = _cut(model, node, [0, 3, 4, 9], dim)
    tp.verify_cut(model, result, X)


def test_a_model_on_meta_is_rehearsed() -> None:
    model = Network().eval().to("meta")
    tp.set_cut(model, _cut(model, "self.experts.up", [0, 1, 2, 3], 2))
    assert model.experts.up.shape == (2, 16, 20)
    assert model.experts.down.shape == (2, 20, 16)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_other_widths_are_refused_with_what_fits(device: str) -> None:
    model = Network().eval().to(device)
    with pytest.raises(tp.LiteralInForwardError, match="multiple of 4 slices"):
        tp.set_cut(model, _cut(model, "self.experts.up", [5], 2))
    assert model.experts.up.shape == (2, 16, 24)
