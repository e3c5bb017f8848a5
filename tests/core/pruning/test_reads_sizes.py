"""Code that reads the size of a tensor that a cut shortens, where the graph shows only a number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.core.pruning.nets import assert_same, state
from torchpruner_core import (
    CutMismatchError,
    CutResult,
    LiteralInForwardError,
    ONNXGraph,
    set_cut,
)
from torchpruner_core.pruning.forward.rehearsal import Stage


class ShapedLike(nn.Module):
    """The parts lie deep, under the same names but for the first; the code between reads a width."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(3, 8, 1))
        self.behind = nn.Sequential(nn.Conv2d(8, 8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.before(x)
        y: torch.Tensor = self.behind(wide)
        return y.reshape(len(x), wide.shape[1], -1)


class Plain(nn.Module):
    """No code between the layers says a shape."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(3, 8, 1))
        self.behind = nn.Sequential(nn.Conv2d(8, 8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.behind(self.before(x))
        return y


# Seven channels divide what eight times five times seven elements there are: nothing would fail.
X = torch.randn(2, 3, 5, 7)


def analysed(model: nn.Module, traced: bool) -> CutResult:
    graph = ONNXGraph(torch.jit.trace(model, X) if traced else model)
    graph.build_graph((X,), fill_value=False)
    return graph.solved.cut_analysis("self.before.0.weight", [2], 0)


@pytest.mark.parametrize("traced", [True, False])
def test_a_width_that_is_read_elsewhere_is_not_followed_silently(traced: bool) -> None:
    model = ShapedLike().eval()
    result = analysed(model, traced)
    assert not result.operator
    assert result.reads_sizes == ("self",)
    before = state(model)
    with pytest.raises(LiteralInForwardError):
        set_cut(model, CutResult.from_json(result.to_json()))
    assert_same(before, state(model))


def test_where_no_code_states_shapes_nothing_is_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Plain().eval()
    result = analysed(model, traced=True)
    assert result.reads_sizes == ()
    monkeypatch.delattr(Stage, "rehearse")
    set_cut(model, result)
    assert model(X).shape == (2, 8, 5, 7)


@pytest.mark.parametrize("inputs", ["x", [1, 2], {"nope": torch.rand(1)}, torch.rand(1, 5)])
def test_inputs_that_the_model_does_not_run_on_are_named(inputs: Any) -> None:
    model = ShapedLike().eval()
    result = analysed(model, traced=True)
    before = state(model)
    with pytest.raises(CutMismatchError, match="does not run on the inputs given"):
        set_cut(model, result, inputs=inputs)
    assert_same(before, state(model))


@pytest.mark.parametrize("names", [5, "self", None, [1, None], {"a": 1}])
def test_names_that_are_none_are_refused_when_a_result_is_read(names: Any) -> None:
    model = Plain().eval()
    data = analysed(model, traced=True).to_dict()
    for key in ("reads_sizes", "renormalises", "literals"):
        with pytest.raises(ValueError, match=key):
            CutResult.from_dict({**data, key: names})


class Branching(nn.Module):
    """Layers whose sizes the code compares; no operator between them says one."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.behind = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(8, 4, 1)
        self.width = 8


class Asserting(Branching):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x).relu()
        assert y.shape[1] == self.width
        out: torch.Tensor = self.head(self.behind(y))
        return out


class SkippingWhereItIsWide(Branching):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x).relu()
        out: torch.Tensor = self.head(self.behind(y) + y if y.size(1) >= 8 else self.behind(y))
        return out


def _of_the_same_size(x: torch.Tensor, layer: nn.Conv2d) -> bool:
    return layer.out_channels == 8 and bool(x.numel())


class AskingALayer(Branching):
    """What is compared is an attribute of a layer, in a function beside the class."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x).relu()
        out: torch.Tensor = self.head(
            self.behind(y) + y if _of_the_same_size(y, self.before) else self.behind(y)
        )
        return out


def cut_of_the_first_layer(model: nn.Module) -> CutResult:
    graph = ONNXGraph(model)
    graph.build_graph((X,), fill_value=False)
    return graph.solved.cut_analysis("self.before.weight", [2], 0)


def test_an_assertion_about_a_width_follows_its_attribute() -> None:
    model = Asserting().eval()
    set_cut(model, cut_of_the_first_layer(model))
    assert model.width == 7
    assert model(X).shape == (2, 4, 5, 7)


@pytest.mark.parametrize("network", [SkippingWhereItIsWide, AskingALayer])
def test_a_path_that_a_width_chooses_is_not_left_silently(network: type[Branching]) -> None:
    model = network().eval()
    result = cut_of_the_first_layer(model)
    before = state(model)
    with pytest.raises(LiteralInForwardError):
        set_cut(model, result)
    assert_same(before, state(model))


class Tabled(nn.Module):
    """Three channels, and a table of three numbers that no buffer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.head = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.before(x) * (torch.arange(3) + 1.0).view(1, 3, 1, 1))
        return out


def test_the_one_slice_that_is_left_is_not_repeated_beside_a_table() -> None:
    model = Tabled().eval()
    graph = ONNXGraph(model)
    graph.build_graph((X,), fill_value=False)
    result = graph.solved.cut_analysis("self.before.weight", [0, 2], 0)
    before = state(model)
    with pytest.raises(LiteralInForwardError):
        set_cut(model, result)
    assert_same(before, state(model))
