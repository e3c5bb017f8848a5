"""``verify_cut`` finds what is wrong, and says what it saw."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.prune import l1_unstructured

from tests.core.pruning.nets import ConvNet, assert_same, axes, conv_net_cut, cut, state
from torchpruner_core import ONNXGraph, verify_cut
from torchpruner_core.errors import ReplayError
from torchpruner_core.pruning.oracle import randomise_norms


def test_a_right_cut_is_equal_and_the_model_untouched() -> None:
    model = ConvNet()
    before = state(model)
    report = verify_cut(model, conv_net_cut([0, 5]), torch.randn(2, 3, 9, 9))
    assert report.equal and report.restored and report.shapes_match and report.ok
    assert report.output_shapes == ((2, 4, 5, 5),)
    assert "equal" in str(report) and "bit for bit" in str(report)
    assert_same(before, state(model))


def test_a_cut_with_shifted_indices_runs_and_is_found_out() -> None:
    wrong = dict(conv_net_cut([0, 5]).terminal)
    wrong["self.3.weight"] = axes(4, a1=[1, 6])
    report = verify_cut(ConvNet(), cut(wrong), torch.randn(2, 3, 9, 9))
    assert report.equal is False and not report.ok and "NOT EQUAL" in str(report)


def test_random_statistics_show_a_batch_norm_cut_at_the_wrong_place() -> None:
    wrong = dict(conv_net_cut([0]).terminal)
    for name in ("weight", "bias", "running_mean", "running_var"):
        wrong[f"self.1.{name}"] = axes(1, a0=[1])
    assert verify_cut(ConvNet(), cut(wrong), torch.randn(2, 3, 9, 9)).equal is False


def test_randomising_leaves_nothing_at_its_default() -> None:
    model = randomise_norms(copy.deepcopy(ConvNet()))
    norm = model[1]
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert len(set(tensor.tolist())) == 8


def traced(model: nn.Module, x: torch.Tensor) -> ONNXGraph:
    graph = ONNXGraph(torch.jit.trace(model.eval(), x))
    graph.build_graph((x,), fill_value=False)
    return graph


def test_what_the_cut_takes_from_an_output_is_taken_from_the_reference() -> None:
    model, x = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 6)), torch.randn(4, 5)
    result = traced(model, x).modules["self.1"].cut_analysis("weight", index=[0, 3], dim=0)
    report = verify_cut(model, result, x)
    assert report.equal and report.pruned_output_shapes == ((4, 4),)


def test_a_cut_input_is_cut() -> None:
    model, x = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 6)), torch.randn(4, 5)
    result = traced(model, x).modules["self.0"].cut_analysis("weight", index=[1], dim=1)
    report = verify_cut(model, result, x)
    assert report.equal and result.touches_inputs


def test_a_normalisation_is_computed_over_the_kept_slices() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 6)).eval()
    nn.init.normal_(model[1].weight)
    x = torch.randn(4, 5)
    graph = ONNXGraph(model)
    graph.build_graph((x,), fill_value=False)
    result = graph.modules["self.0"].cut_analysis("weight", index=[0, 3], dim=0)
    assert result.renormalises
    report = verify_cut(model, result, x)
    assert report.equal, str(report)
    assert report.reference == "masked ONNX model"


def test_a_dict_of_inputs_is_passed_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 6)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": self.b(self.a(x) * y)}

    result = cut(
        {
            "self.a.weight": axes(2, a0=[0]),
            "self.a.bias": axes(1, a0=[0]),
            "self.b.weight": axes(2, a1=[0]),
        }
    )
    report = verify_cut(Named(), result, {"y": torch.ones(1), "x": torch.randn(4, 5)})
    assert report.equal


def test_a_report_cannot_be_changed() -> None:
    report = verify_cut(ConvNet(), conv_net_cut([0]), torch.randn(1, 3, 9, 9))
    with pytest.raises(AttributeError):
        report.equal = False  # type: ignore[misc]


def test_a_model_that_does_not_run_is_told_from_a_wrong_cut() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    result = cut(
        {
            "self.0.weight": axes(2, a0=[0]),
            "self.0.bias": axes(1, a0=[0]),
            "self.1.weight": axes(2, a1=[0]),
        }
    )

    with pytest.raises(ReplayError, match="does not run on these inputs"):
        verify_cut(model, result, torch.rand(2, 5))
    with pytest.raises(ReplayError, match="meta device"):
        verify_cut(copy.deepcopy(model).to("meta"), result, torch.rand(2, 4))

    half = cut({name: result.terminal[name] for name in ("self.0.weight", "self.0.bias")})
    report = verify_cut(model, half, torch.rand(2, 4))
    assert not report.ok
    assert "the pruned network does not run" in str(report)


def test_a_result_without_tensors_proves_nothing() -> None:
    class Opaque(nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            return object()

    report = verify_cut(Opaque(4, 6), cut({"self.bias": axes(1, a0=[0])}), torch.rand(2, 4))

    assert report.equal is None
    assert "no tensors to compare" in report.reason


def test_a_model_whose_weight_a_hook_computed_is_copied() -> None:
    layer = l1_unstructured(nn.Linear(4, 6), "weight", 0.3)
    model = nn.Sequential(layer, nn.Linear(6, 3))
    model(torch.rand(2, 4))
    result = cut(
        {
            "self.0.weight_orig": axes(2, a0=[0]),
            "self.0.weight_mask": axes(2, a0=[0]),
            "self.0.bias": axes(1, a0=[0]),
            "self.1.weight": axes(2, a1=[0]),
        }
    )
    assert verify_cut(model, result, torch.rand(2, 4)).ok
