"""Constants in a forward() that a cut concerns: each is seen to follow, or the cut is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.zoo.adversarial import parts, sizes, statistics, templates, writes
from benchmarks.zoo.adversarial.sandwich import Sandwich
from benchmarks.zoo.onnx_check import run
from tests.core.pruning.nets import assert_same, state
from torchpruner_core import (
    CutResult,
    LiteralInForwardError,
    ONNXGraph,
    export_onnx,
    prune_onnx,
    set_cut,
    verify_cut,
)
from torchpruner_core.pruning.forward.places import place_of

X = torch.randn(1, 3, 6, 6)


def analysed(
    model: nn.Module, index: list[int], node: str = "self.stem.weight", traced: bool = False
) -> CutResult:
    graph = ONNXGraph(torch.jit.trace(model, X, check_trace=False) if traced else model)
    graph.build_graph((X,), fill_value=False)
    return graph.solved.cut_analysis(node, index, 0)


class TestSizesUsedAsNumbers:
    NETWORKS = (
        sizes.SumOverSize, sizes.EqualisedLearningRate, sizes.NormOverRoot, sizes.FilledWithASize,
        sizes.TemperatureOfAWidth,
    )  # fmt: skip

    @pytest.mark.parametrize("network", NETWORKS)
    def test_keep_the_value_they_had(self, network: type[nn.Module]) -> None:
        model = network().eval()
        result = analysed(model, [2, 9], traced=True)
        assert result.reads_sizes or result.renormalises
        report = verify_cut(model, result, X)
        assert report.ok and report.equal, report

    @pytest.mark.parametrize("network", NETWORKS[:2])
    def test_are_the_same_in_the_module_and_in_onnx(self, network: type[nn.Module]) -> None:
        model = network().eval()
        result = analysed(model, [2, 9])
        pruned = prune_onnx(export_onnx(model, (X,)), result)
        set_cut(model, result)
        [expected] = run(pruned, {"x": X.numpy()}).values()
        np.testing.assert_allclose(model(X).detach().numpy(), expected, rtol=1e-4, atol=1e-5)

    def test_that_become_a_tensor_are_refused(self) -> None:
        model = sizes.ChannelPositions().eval()
        with pytest.raises(LiteralInForwardError, match="computes something else"):
            set_cut(model, analysed(model, [2, 9]))


class TestPartsOfATensor:
    @pytest.mark.parametrize(
        ("network", "node", "index"),
        [
            (parts.PrefixOfAWeight, "self.wide_weight", [3]),
            (parts.PrefixOfBothAxes, "self.first_weight", [0, 5]),
            (parts.NarrowedWeight, "self.wide_weight", [7]),
            (parts.MiddleOfTheChannels, "self.stem.weight", [1, 6]),
            (parts.TwoOverlappingRanges, "self.stem.weight", [8]),
            (parts.LastChannels, "self.stem.weight", [0, 12]),
            (writes.FirstHalfReplaced, "self.stem.weight", [2]),
            (writes.MiddleFilled, "self.stem.weight", [2, 7]),
            (writes.SliceScattered, "self.stem.weight", [3, 8]),
            (writes.AddedInPlace, "self.stem.weight", [5]),
        ],
    )
    def test_are_refused_and_corrected_where_that_is_asked(
        self, network: type[nn.Module], node: str, index: list[int]
    ) -> None:
        model = network().eval()
        result = analysed(model, index, node)
        before = state(model)
        with pytest.raises(LiteralInForwardError):
            set_cut(model, result)
        assert_same(before, state(model))
        report = verify_cut(model, result, X, correct_forward=True)
        assert report.ok and report.equal, report

    def test_follow_an_attribute_that_bounds_them(self) -> None:
        model = parts.PrefixByAnAttribute().eval()
        result = analysed(model, [3, 20], "self.wide_weight", traced=True)
        assert verify_cut(model, result, X).equal
        set_cut(model, result)
        assert model.width == 15


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize(
    "network",
    [
        templates.ConvolutionalLSTM, templates.ConvolutionalGRU, templates.FullLike,
        templates.PaddedWithZerosLike,
    ],
)  # fmt: skip
def test_a_tensor_made_like_another_is_cut_along(network: type[nn.Module], traced: bool) -> None:
    model = network().eval()
    report = verify_cut(model, analysed(model, [1, 8], traced=traced), X)
    assert report.ok and report.equal is not False, report


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize(
    "network",
    [
        statistics.WeightStandardisation,
        statistics.WeightStandardisationAtOnce,
        statistics.DeviationOfChannels,
    ],
)
def test_a_variance_counts_the_slices_that_are_left(network: type[nn.Module], traced: bool) -> None:
    model = network().eval()
    program = torch.jit.trace(model, X, check_trace=False) if traced else model
    result = analysed(model, [1, 8, 9], traced=traced)
    pruned = prune_onnx(export_onnx(program, (X,)), result)
    if not traced:
        report = verify_cut(model, result, X)
        assert report.equal and "ONNX" in report.reference, report
    set_cut(model, result)
    [expected] = run(pruned, {"x": X.numpy()}).values()
    np.testing.assert_allclose(model(X).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


class Diverging(Sandwich):
    """Takes another path once the widths agree."""

    narrow = 12

    def prepare(self) -> None:
        self.body = nn.Conv2d(16, 12, 3, padding=1)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        y = self.body(h)
        return 2 * y + 1 if h.shape[1] == 14 else 2 * y


def test_another_path_is_refused_where_its_values_differ() -> None:
    model = Diverging().eval()
    with pytest.raises(LiteralInForwardError, match="takes another path"):
        set_cut(model, analysed(model, [0, 1], traced=True))
    set_cut(model, analysed(model, [0], traced=True))


T = torch.zeros(1, 16, 6, 6)
REMOVED = np.array([2, 9])


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("__getitem__", (T, (slice(None), slice(4, 12))), (slice(None), slice(3, 10))),
        ("__getitem__", (T, (slice(None), slice(-5, None))), (slice(None), slice(-5, None))),
        ("__getitem__", (T, (slice(None), slice(2, -7))), (slice(None), slice(2, -6))),
        ("__getitem__", (T, (Ellipsis, slice(0, 8), 0, 0)), (Ellipsis, slice(0, 7), 0, 0)),
        ("__getitem__", (T, (None, 0, 5)), (None, 0, 4)),
        ("__getitem__", (T, (0, [1, 2, 15, -1])), (0, [1, 13, -1])),
        ("__getitem__", (T, (0, 2)), None),
        ("__getitem__", (T, (0, slice(None, None, 2))), None),
        ("__setitem__", (T, (slice(None), slice(8, None)), 1.0), (slice(None), slice(7, None))),
        ("narrow", (T, 1, 4, 8), (1, 3, 7)),
        ("narrow", (T, 2, 1, 4), (2, 1, 4)),
        ("slice_scatter", (T, T, 1, 4, 10), (1, 3, 8)),
    ],
)
def test_a_place_means_the_same_slices_after_the_cut(name, args, expected) -> None:
    place = place_of(name, args, {})
    assert place is not None
    assert place.after(1, REMOVED) == expected


def test_a_place_that_tensors_name_is_none_of_ours() -> None:
    assert place_of("__getitem__", (T, (slice(None), torch.tensor([1]))), {}) is None
    assert place_of("relu", (T,), {}) is None
