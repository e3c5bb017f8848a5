"""Tensors of positions along a cut axis: their values follow, and come back."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.zoo.adversarial import indices
from tests.core.pruning.nets import assert_same, state
from torchpruner_core import (
    CutMismatchError,
    CutResult,
    LiteralInForwardError,
    ONNXGraph,
    merge_cut_dict,
    recovery_cut,
    set_cut,
    set_zero,
    verify_cut,
)
from torchpruner_core.cut_result import Renumbering
from torchpruner_core.errors import OpaqueAxisError

X = torch.randn(2, 3, 6, 6)


def analysed(model: nn.Module, index: list[int], traced: bool = True) -> CutResult:
    graph = ONNXGraph(torch.jit.trace(model, X, check_trace=False) if traced else model)
    graph.build_graph((X,), fill_value=False)
    result = graph.solved.cut_analysis("self.stem.weight", index, 0)
    return CutResult.from_json(result.to_json())


def test_entries_are_renumbered_and_come_back_bit_for_bit() -> None:
    model = indices.KeptChannels().eval()
    result = analysed(model, [1, 5, 6])
    before = state(model)
    _, context = set_cut(model, result)
    assert model.keep.tolist() == [0, 1, 2, 4, 5, 6, 9, 10, 12]
    recovery_cut(model, result, pickle.loads(pickle.dumps(context)))
    assert_same(before, state(model))


@pytest.mark.parametrize(
    "network",
    [
        indices.Permuted, indices.IndexCopied, indices.GatheredChannels, indices.OneOrderForTwo,
        indices.IndicesInAnAttribute, indices.IndicesInAList,
    ],
)  # fmt: skip
def test_the_pruned_network_equals_the_masked_one(network: type[nn.Module]) -> None:
    model = network().eval()
    report = verify_cut(model, analysed(model, [5, 9, 15], traced=False), X)
    assert report.ok and report.equal, report


@pytest.mark.parametrize("index", [[0], [2, 9], [5, 14, 15]])
def test_a_traced_program_says_the_same(index: list[int]) -> None:
    for network in (indices.KeptChannels, indices.CountedFromTheEnd, indices.ScatteredChannels):
        model = network().eval()
        report = verify_cut(model, analysed(model, index), X)
        assert report.ok and report.equal, report


def test_one_order_for_two_tensors_cuts_them_alike() -> None:
    result = analysed(indices.OneOrderForTwo().eval(), [3])
    assert result.terminal["self.other.weight"][0].tolist() == [3]


def test_indices_that_are_also_computed_with_freeze_the_axis() -> None:
    class Both(indices.Permuted):
        def between(self, h: torch.Tensor) -> torch.Tensor:
            return h[:, self.order] * self.order.reshape(1, -1, 1, 1)

    with pytest.raises(OpaqueAxisError, match="also computed with"):
        analysed(Both().eval(), [3])


def test_a_buffer_with_other_entries_than_were_analysed_is_refused() -> None:
    model = indices.KeptChannels().eval()
    result = analysed(model, [1, 4])
    model.keep[0] = 4
    before = state(model)
    with pytest.raises(CutMismatchError, match=r"self\.keep"):
        set_cut(model, result)
    assert_same(before, state(model))


def test_indices_in_the_code_are_corrected_only_where_that_is_asked() -> None:
    model = indices.IndicesInTheCode().eval()
    result = analysed(model, [2, 5, 7])
    before = state(model)
    with pytest.raises(LiteralInForwardError, match="indices"):
        set_cut(model, result)
    assert_same(before, state(model))
    report = verify_cut(model, result, X, correct_forward=True)
    assert report.equal, report


def test_indices_that_the_code_computes_are_refused_by_their_values() -> None:
    model = indices.IndicesComputed().eval()
    with pytest.raises(LiteralInForwardError, match=r"fails with values .*index"):
        set_cut(model, analysed(model, [0, 4]))


def test_masking_leaves_positions_alone() -> None:
    model = indices.IndexAdded().eval()
    places = model.places.clone()
    set_zero(model, analysed(model, [1, 2]))
    assert torch.equal(model.places, places)


def test_entries_changed_after_the_cut_are_translated_back() -> None:
    model = indices.KeptChannels().eval()
    result = analysed(model, [1, 6])
    _, context = set_cut(model, result)
    model.keep[0] = 1  # what was channel 2
    recovery_cut(model, result, context)
    assert model.keep.tolist() == [2, 2, 3, 5, 7, 8, 9, 12, 13, 15]


def test_joined_cuts_renumber_by_both() -> None:
    model = indices.KeptChannels().eval()
    joined = merge_cut_dict(analysed(model, [1]), analysed(model, [6, 13]))
    set_cut(model, joined)
    assert model.keep.tolist() == [0, 1, 2, 4, 5, 6, 7, 10, 12]
    assert model(X).shape == (2, 5, 6, 6)


def test_cuts_in_a_row_are_undone_newest_first() -> None:
    model = indices.Permuted().eval()
    before, contexts = state(model), []
    for index in ([3], [0, 7]):
        result = analysed(model, index)
        contexts.append((result, set_cut(model, result)[1]))
        model(X)
    for result, context in reversed(contexts):
        recovery_cut(model, result, context)
    assert_same(before, state(model))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_a_renumbering_is_undone(dtype: Any) -> None:
    renumbering = Renumbering(10, np.array([2, 5]))
    entries = np.array([0, 1, 3, 4, 6, 9], dtype=dtype)
    assert renumbering.apply(entries).tolist() == [0, 1, 2, 3, 4, 7]
    assert renumbering.undo(renumbering.apply(entries)).tolist() == entries.tolist()


def test_a_renumbering_counts_from_the_end_where_its_entries_do() -> None:
    renumbering = Renumbering(10, np.array([2, 5]))
    entries = np.array([-1, -4, -7, -10])
    assert renumbering.apply(entries).tolist() == [-1, -4, -6, -8]
    assert renumbering.undo(renumbering.apply(entries)).tolist() == entries.tolist()
    assert Renumbering.from_dict(renumbering.to_dict()).apply(entries).tolist() == [-1, -4, -6, -8]


class Masked(indices.KeptChannels):
    """The channels are chosen by a mask, and not by a list of them."""

    def prepare(self) -> None:
        self.register_buffer("mask", torch.arange(16) < 10)

    def between(self, h: torch.Tensor) -> torch.Tensor:
        return h[:, self.mask]


def test_a_mask_that_chooses_channels_is_named_with_the_way_on() -> None:
    with pytest.raises(OpaqueAxisError, match=r"the mask self\.mask: hold the places in its stead"):
        analysed(Masked().eval(), [3], traced=False)
