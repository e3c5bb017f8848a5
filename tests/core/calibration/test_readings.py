"""What a weight reads is seen wherever the product is written."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchpruner_core.calibration.as_found import as_found
from torchpruner_core.calibration.readings import Reading, Watch


def seen(
    model: nn.Module, *inputs: torch.Tensor
) -> tuple[dict[str, list[tuple[Reading, torch.Tensor]]], Watch]:
    found: dict[str, list[tuple[Reading, torch.Tensor]]] = {}
    watch = Watch(
        model, lambda r, x: found.setdefault(r.weight, []).append((r, x.detach().clone()))
    )
    with torch.no_grad(), as_found(model), watch:
        model(*inputs)
    return found, watch


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.rand(6, 4))
        self.experts = nn.Parameter(torch.rand(3, 4, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.w[2:5]).sum() + torch.bmm(x.expand(3, -1, -1), self.experts).sum()


@pytest.mark.parametrize(
    ("model", "shape", "weight", "features"),
    [
        (nn.Linear(4, 6), (2, 3, 4), "self.weight", 4),
        (nn.Linear(4, 6), (4,), "self.weight", 4),
        (nn.Conv2d(4, 6, 3), (2, 4, 5, 5), "self.weight", 4),
        (nn.Conv1d(4, 6, 3, groups=2), (2, 4, 5), "self.weight", 4),
        (nn.ConvTranspose2d(4, 6, 3), (2, 4, 5, 5), "self.weight", 4),
    ],
)
def test_the_view_of_the_weight_times_the_input_is_the_output(
    model: nn.Module, shape: tuple[int, ...], weight: str, features: int
) -> None:
    x = torch.rand(shape)
    found, _ = seen(model, x)
    ((reading, tensor),) = found[weight]
    assert reading.bias == "self.bias"
    assert reading.features == features == tensor.shape[-1]
    assert tensor.sum() == pytest.approx(float(x.sum()), rel=1e-5)
    parameter = model.get_parameter("weight")
    total = sum(float(block.of(parameter).sum()) for block in reading.blocks)
    assert total == pytest.approx(float(parameter.sum()), rel=1e-4)


def test_axes_are_told_from_strides() -> None:
    model = nn.Conv2d(4, 6, (3, 2), groups=2).to(memory_format=torch.channels_last)
    found, _ = seen(model, torch.rand(1, 4, 5, 5))
    ((reading, _),) = found["self.weight"]
    for group, block in enumerate(reading.blocks):
        (summed,) = block.coordinates(model.weight, 0)
        assert summed[0] == 1 and summed[1].tolist() == [0, 1]
        (out,) = block.coordinates(model.weight, 1)
        assert out[0] == 0 and out[1].tolist() == [3 * group + k for k in range(3)]
        assert block.features == slice(2 * group, 2 * group + 2)


def test_slices_of_a_parameter_and_stacks_of_experts_are_told_apart() -> None:
    model = Functional()
    found, _ = seen(model, torch.rand(2, 4))
    ((rows, _),) = found["self.w"]
    assert rows.blocks[0].coordinates(model.w, 1)[0][1].tolist() == [2, 3, 4]
    assert len(found["self.experts"]) == 3
    for (reading, _), expert in zip(found["self.experts"], model.experts, strict=True):
        assert torch.equal(reading.blocks[0].of(model.experts), expert)


def test_attention_and_its_projections_are_seen_in_evaluation() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.rand(2, 3, 8)
    found, _ = seen(attention, x, x, x)
    assert set(found) == {"self.in_proj_weight", "self.out_proj.weight"}


def test_a_weight_that_is_also_an_embedding_is_read_otherwise() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.rand(10, 4))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return F.linear(F.embedding(ids, self.w), self.w)

    found, watch = seen(Tied(), torch.tensor([1, 2]))
    assert "self.w" in found
    assert watch.otherwise["self.w"] == {"aten.embedding.default"}
