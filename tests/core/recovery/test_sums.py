"""What a sum lacks is mended by the product that is added last, whatever lies between them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchpruner_core as tp


class TwoBranches(nn.Module):
    """The second branch knows all features of the first one, which loses one."""

    def __init__(self, between: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.between = between
        kernel = {"kernel_size": 3, "padding": 1} if between == "convolution" else {}
        layer = nn.Conv2d if between == "convolution" else nn.Linear
        self.first_in, self.first_out = layer(4, 6, **kernel), layer(6, 5, **kernel)
        self.second_in, self.second_out = layer(4, 6, **kernel), layer(6, 5, **kernel)
        with torch.no_grad():
            self.second_in.weight.copy_(self.first_in.weight)
            self.second_in.bias.copy_(self.first_in.bias)
        if between == "convolution":
            self.norm = nn.BatchNorm2d(5)
            with torch.no_grad():
                self.norm.running_mean.uniform_(-1, 1)
                self.norm.running_var.uniform_(0.5, 2)
                self.norm.weight.uniform_(0.5, 2)
        if between == "layer scale in another layout":
            self.gain = nn.Parameter(torch.rand(5, 1) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first_out(F.relu(self.first_in(x)))
        second = self.second_out(F.relu(self.second_in(x)))
        if self.between == "convolution":
            return first + self.norm(second)
        if self.between == "layer scale in another layout":
            return first.mT + self.gain * second.mT
        if self.between == "overwritten":
            return first + second.relu_()
        first += second
        return first


def recovered(between: str) -> tp.Recovery:
    model = TwoBranches(between).eval()
    shape = (4, 4, 9, 9) if between == "convolution" else (4, 20, 4)
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(shape, generator=generator) for _ in range(4)]
    graph = tp.ONNXGraph(model).build_graph((batches[0],), fill_value=False)
    cut = graph.modules["self.first_in"].cut_analysis("weight", index=[5], dim=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model, context = tp.set_cut(model, cut)
    done = tp.recover(model, cut, batches, strength=1e-9, batchnorm=False)
    model = tp.recovery_cut(model, cut, context)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return done


@pytest.mark.parametrize("between", ["nothing", "convolution", "layer scale in another layout"])
def test_the_last_summand_makes_up_for_what_the_others_lost(between: str) -> None:
    done = recovered(between)
    assert done.error_before > 0.01
    assert done.error_after < 1e-3
    assert "self.second_out.weight" in done.repaired


def test_a_product_that_was_written_over_is_not_fitted_to_a_sum() -> None:
    done = recovered("overwritten")
    assert "self.second_out.weight" not in done.repaired
    assert done.error_after <= done.error_before
