"""The manual, read from the top.

Its import name ``torchpruner`` is ``torchpruner_core`` here. Its slips are put right as noted beside each
block: ``graph.node`` is ``graph.nodes``, ``nn.Relu`` is ``nn.ReLU``, ``recovery_cut(model, result, model)``
takes the context, ``super(X).__init__(self, ...)`` is ``super().__init__(...)``,
``torch.optim.SGD(model, parameters(), ...)`` is ``model.parameters()``.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import torchpruner_core as torchpruner


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


class ConvBnNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1)
        self.bn = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 10, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(torch.relu(self.bn(self.conv(x))))


@pytest.fixture(scope="module")
def built() -> torchpruner.ONNXGraph:
    graph = torchpruner.ONNXGraph(ConvBnNet().eval())
    graph.build_graph((torch.zeros(1, 3, 32, 32),))
    return graph


@pytest.fixture
def pruning(built: Any) -> tuple[nn.Module, Any]:
    """A fresh copy of the analysed model, and its graph."""
    return copy.deepcopy(built.model), built
