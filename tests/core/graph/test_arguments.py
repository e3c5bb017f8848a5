"""Models whose arguments and results are not plain tuples of tensors."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torchpruner_core as tp
from torchpruner_core.errors import ExportError, GraphError, InputSpecError


@pytest.fixture(autouse=True)
def one_thread_and_a_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)
        self.b = nn.Linear(5, 6)
        self.c = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.c(self.a(x) + self.b(y))


@dataclass
class Answer:
    logits: torch.Tensor
    extra: list[torch.Tensor]


class OfDict(Sum):
    def forward(self, d: dict[str, Any], n: float = 1.0, mask: Any = None) -> Any:
        out = super().forward(d["x"], d["rest"][0]) * n
        return {"logits": out if mask is None else out + mask}


class ToDataclass(Sum):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return Answer(super().forward(x, y), [self.a(x)])


class ToNamespace(Sum):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return SimpleNamespace(logits=super().forward(x, y))


class Branching(Sum):
    def forward(self, x: torch.Tensor, y: torch.Tensor, n: float = 1.0) -> Any:
        return super().forward(x, y) * n if x.sum() > 0 else super().forward(-x, y)


X, Y = torch.rand(2, 4), torch.rand(2, 5)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (Sum(), {"y": Y, "x": X}),
        (Sum(), [X, Y]),
        (Sum(), (X.numpy(), Y.numpy())),
        (OfDict(), ({"x": X, "rest": [Y]},)),
        (OfDict(), ({"x": X, "rest": [Y]}, 2.0, None)),
        (OfDict(), {"d": {"x": X, "rest": (Y,)}, "n": 3}),
        (ToDataclass(), (X, Y)),
        (ToNamespace(), (X, Y)),
        (Branching(), (X, Y, 2.0)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_arrangement_is_analysed_filled_and_replayed(model: nn.Module, inputs: Any) -> None:
    graph = tp.ONNXGraph(model.eval())
    graph.build_graph(inputs)

    assert graph.nodes["self.a.weight"].data is not None
    result = graph.modules["self.a"].cut_analysis("weight", [1, 3], 0)
    report = tp.verify_cut(model, result, inputs)
    assert report.equal and report.effect > report.tolerance, report
    assert report.output_shapes


def test_a_cut_of_a_nested_argument_is_replayed() -> None:
    model, inputs = OfDict().eval(), {"d": {"x": X, "rest": [Y]}}
    graph = tp.ONNXGraph(model)
    graph.build_graph(inputs, fill_value=False)

    result = graph.modules["self.b"].cut_analysis("weight", [0], 1)

    assert result.touches_inputs == ("d_rest_0",)
    assert tp.verify_cut(model, result, inputs).equal


@pytest.mark.parametrize("inputs", ["a string", 3, object()])
def test_what_is_no_input_is_refused(inputs: Any) -> None:
    with pytest.raises(InputSpecError, match="inputs are a tensor, a tuple"):
        tp.ONNXGraph(Sum()).build_graph(inputs)


def test_where_values_cannot_be_filled_the_error_says_how_to_do_without() -> None:
    model = Sum().to(torch.bfloat16)
    inputs = (X.bfloat16(), Y.bfloat16())
    graph = tp.ONNXGraph(model)

    with pytest.raises(GraphError, match="fill_value=False"):
        graph.build_graph(inputs)
    with pytest.raises(ExportError, match="fill_value=False"):
        tp.ONNXGraph(Sum().to("meta")).build_graph((X, Y))

    graph.build_graph(inputs, fill_value=False)
    result = graph.modules["self.a"].cut_analysis("weight", [1], 0)
    assert tp.verify_cut(model, result, inputs, tolerance=0.05).ok


def test_an_export_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    tp.ONNXGraph(Branching()).build_graph((X, Y), fill_value=False)

    assert capfd.readouterr() == ("", "")


def test_a_graph_of_no_tensors_and_a_scalar_parameter() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    graph = tp.ONNXGraph(Scaled())
    graph.build_graph(np.ones((2, 3), np.float32))
    with pytest.raises(tp.errors.CutDimError, match="scalar"):
        graph.modules["self"].cut_analysis("scale", [0], 0)
