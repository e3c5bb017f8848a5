"""Integers that forward() never reads: a block's widths for ``fuse()`` and its like."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import torchpruner_core as tp
from tests.core.pruning.nets import assert_same, state
from torchpruner_core.errors import StaleStateWarning


class Branches(nn.Module):
    """A depthwise block of two branches that ``fuse()`` makes one, from numbers it wrote down."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.in_chs = self.out_chs = self.g = channels
        self.stride, self.mystery = 16, channels
        self.wide = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.narrow = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.wide(x) + self.narrow(x))

    def fuse(self) -> nn.Conv2d:
        fused = nn.Conv2d(self.in_chs, self.out_chs, 3, padding=1, groups=self.g, bias=False)
        with torch.no_grad():
            fused.weight.copy_(self.wide.weight)
            fused.weight[:, :, 1:2, 1:2] += self.narrow.weight
        return fused


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 16, 1), Branches(16), nn.Conv2d(16, 4, 1))


class Parts(nn.Module):
    """A ``C2f``: the forward splits by ``chunk``, another one by the number that was written down."""

    def __init__(self) -> None:
        super().__init__()
        self.c = 8
        self.into = nn.Conv2d(3, 16, 1)
        self.inner = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.out = nn.Conv2d(24, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.into(x).chunk(2, 1)
        return self.out(torch.cat((a, b, self.inner(b)), 1))

    def forward_split(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.into(x).split((self.c, self.c), 1)
        return self.out(torch.cat((a, b, self.inner(b)), 1))


class Heads(nn.Module):
    """As many heads as the convolution beside them has channels: only a run tells them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 16
        self.conv = nn.Conv1d(1, 16, 1)
        self.back = nn.Conv1d(16, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.back(torch.relu(self.conv(x)))
        return h.reshape(h.shape[0], self.heads, -1).softmax(-1)


def asked(model: nn.Module, x: torch.Tensor, *requests: tuple[str, list[int]]) -> tp.CutResult:
    graph = tp.ONNXGraph(model).build_graph((x,), fill_value=False)
    return graph.solved.cut_analysis_many(
        [tp.CutRequest(name, 0, tuple(index)) for name, index in requests]
    )


@pytest.mark.filterwarnings("error::torchpruner_core.errors.StaleStateWarning")
def test_those_that_all_layers_agree_on_follow_and_fuse_works() -> None:
    model, x = Net().eval(), torch.randn(2, 3, 5, 5)
    before = state(model)
    result = asked(model, x, ("self.0.weight", [0, 7]))
    _, context = tp.set_cut(model, result, inputs=(x,))
    block: Any = model[1]
    assert (block.in_chs, block.out_chs, block.g, block.mystery) == (14, 14, 14, 14)
    assert block.stride == 16
    h = model[0](x)
    torch.testing.assert_close(torch.relu(block.fuse()(h)), block(h))
    tp.recovery_cut(model, result, context)
    assert_same(before, state(model))


def test_the_input_width_is_told_from_the_output_width_by_its_name() -> None:
    class Widths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.in_planes = self.out_planes = 16
            self.layer = nn.Conv2d(16, 16, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    model, x = (
        nn.Sequential(nn.Conv2d(3, 16, 1), Widths(), nn.Conv2d(16, 2, 1)),
        torch.randn(1, 3, 2, 2),
    )
    tp.set_cut(model, asked(model, x, ("self.1.layer.weight", [0])))
    widths: Any = model[1]
    assert (widths.in_planes, widths.out_planes) == (16, 15)


def test_a_number_that_two_equal_parts_repeat_follows_them() -> None:
    model, x = Parts().eval(), torch.randn(1, 3, 4, 4)
    result = asked(model, x, ("self.into.weight", [0, 8]))
    tp.set_cut(model, result)
    assert model.c == 7
    torch.testing.assert_close(model(x), model.forward_split(x))


def test_one_that_only_a_part_of_agrees_on_is_named() -> None:
    model, x = Parts().eval(), torch.randn(1, 3, 4, 4)
    result = asked(model, x, ("self.inner.0.weight", [0]))
    with pytest.warns(StaleStateWarning, match=r"self\.c \(8; beside it now 7, 8\)"):
        tp.set_cut(model, result)
    assert model.c == 8


def test_one_that_two_unequal_parts_repeat_is_named() -> None:
    model, x = Parts().eval(), torch.randn(1, 3, 4, 4)
    result = asked(model, x, ("self.into.weight", [0]))
    with pytest.warns(StaleStateWarning, match=r"self\.c \(8; beside it now 7, 8\)"):
        tp.set_cut(model, result, correct_forward=True)


@pytest.mark.filterwarnings("error::torchpruner_core.errors.StaleStateWarning")
def test_a_width_within_a_child_is_no_affair_of_its_parent() -> None:
    class Bottleneck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.b(torch.relu(self.a(x)))

    model, x = Parts().eval(), torch.randn(1, 3, 4, 4)
    model.inner = Bottleneck()  # type: ignore[assignment]
    tp.set_cut(model, asked(model, x, ("self.inner.a.weight", [0])))
    assert model.c == 8


def test_a_number_that_the_forward_reads_for_something_else_stays() -> None:
    model, x = Heads().eval(), torch.randn(2, 1, 64)
    expected = model(x).shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StaleStateWarning)
        tp.set_cut(model, asked(model, x, ("self.conv.weight", [0, 1])))
    assert model.heads == 16 and model(x).shape == expected


@pytest.mark.parametrize("name", ["mobileone_s0", "repvgg_a0"])
def test_timm_models_are_reparameterized_after_a_cut(name: str) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, num_classes=3).eval()
    x = torch.rand(1, 3, 32, 32)
    graph = tp.ONNXGraph(model).build_graph((x,), fill_value=False)
    convolution = next(
        n for n, m in model.stages[1].named_modules() if isinstance(m, nn.Conv2d) and m.groups == 1
    )
    result = graph.nodes[f"self.stages.1.{convolution}.weight"].cut_analysis([0, 1], 0)
    tp.set_cut(model, result)
    fused = timm.utils.reparameterize_model(model)
    torch.testing.assert_close(fused(x), model(x), rtol=1e-3, atol=1e-4)


class PositionedHeads(nn.Module):
    """Heads whose width is divided in the code, beside a table made for the length that it meets."""

    table: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.read, self.qk, self.v = nn.Linear(8, 64), nn.Linear(64, 128), nn.Linear(64, 64)
        self.distance, self.proj = nn.Linear(3, 4), nn.Linear(64, 5)
        self.register_buffer("table", torch.zeros(1, 1, 1, 3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.read(x)
        b, n, c = x.shape
        if self.table.shape[1] != n:
            self.table = torch.arange(3.0 * n * n).view(1, n, n, 3) / n**2
        qk = self.qk(x).reshape(b, n, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        near = self.distance(self.table.expand(b, -1, -1, -1)).permute(0, 3, 1, 2)
        weights = (qk[0] @ qk[1].transpose(-2, -1)).softmax(-1) + near.softmax(-1)
        v = self.v(x).reshape(b, n, self.heads, c // self.heads).permute(0, 2, 1, 3)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


def test_a_number_that_a_corrected_call_divides_by_stays() -> None:
    model, x = PositionedHeads().eval(), torch.randn(1, 7, 8)
    graph = tp.ONNXGraph(model).build_graph((x,), fill_value=False)
    result = graph.nodes["self.qk.weight"].cut_analysis([20], 0, granularity="outer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StaleStateWarning)
        _, context = tp.set_cut(model, result, inputs=(x,), correct_forward=True, verify=True)
    assert model.heads == 4
    tp.recovery_cut(model, result, context)
