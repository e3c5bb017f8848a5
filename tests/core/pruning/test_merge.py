"""``merge_cut_dict`` joins cuts of one model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.core.pruning.nets import ConvNet, assert_same, axes, conv_net_cut, cut, state
from torchpruner_core import ONNXGraph, merge_cut_dict, recovery_cut, set_cut, verify_cut
from torchpruner_core.errors import MergeError


def test_indices_of_one_axis_are_united() -> None:
    merged = merge_cut_dict(conv_net_cut([0, 1]), conv_net_cut([1, 5]))
    assert merged["terminal"]["self.0.weight"][0].tolist() == [0, 1, 5]
    model = ConvNet()
    before = state(model)
    _, context = set_cut(model, merged)
    assert model[0].out_channels == 5
    recovery_cut(model, merged, context)
    assert_same(before, state(model))


def test_plain_dicts_and_lists_of_cuts_are_taken() -> None:
    plain = {"terminal": {"self.w": [[0], []]}, "iner": {}, "operator": {}}
    other = {"terminal": {"self.w": [[], [2]]}, "iner": {}, "operator": {}}
    merged = merge_cut_dict([plain, other])
    assert [entry.tolist() for entry in merged["terminal"]["self.w"]] == [[0], [2]]


def depthwise(indices: list[int]) -> object:
    return cut(
        {"self.0.weight": axes(4, a0=indices), "self.0.bias": axes(1, a0=indices)},
        operator={"self.0.Conv": {"group": len(indices)}},
    )


@pytest.mark.parametrize(
    ("one", "two", "groups"),
    [([0], [1], 2), ([0, 1], [1], 2), ([1], [0, 1], 2), ([0, 1], [1, 2], 3)],
)
def test_a_depthwise_convolution_loses_as_many_groups_as_channels(
    one: list[int], two: list[int], groups: int
) -> None:
    merged = merge_cut_dict(depthwise(one), depthwise(two))  # type: ignore[arg-type]
    assert merged["operator"]["self.0.Conv"]["group"] == groups
    model = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6))
    set_cut(model, merged)
    assert model[0].groups == 6 - groups


def test_a_partial_overlap_in_another_constant_asks_for_a_joint_analysis() -> None:
    one = cut({"self.w": axes(1, a0=[0, 1])}, operator={"self.Reshape": {"shape": [0, 2]}})
    two = cut({"self.w": axes(1, a0=[1, 2])}, operator={"self.Reshape": {"shape": [0, 2]}})
    with pytest.raises(MergeError, match="cut_analysis_many"):
        merge_cut_dict(one, two)


def test_cuts_of_different_graphs_are_refused() -> None:
    one = cut({"self.w": axes(1, a0=[0])}, shapes={"self.w": (4,)})
    two = cut({"self.w": axes(1, a0=[1])}, shapes={"self.w": (5,)})
    with pytest.raises(MergeError, match="same graph"):
        merge_cut_dict(one, two)


def test_two_analysed_cuts_of_a_network_join_into_one_that_is_right() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1)
    )
    x = torch.randn(1, 3, 9, 9)
    graph = ONNXGraph(torch.jit.trace(model, x))
    graph.build_graph((x,), fill_value=False)
    one = graph.modules["self.0"].cut_analysis("weight", index=[0, 1], dim=0)
    two = graph.modules["self.1"].cut_analysis("weight", index=[1, 2], dim=0)
    three = graph.modules["self.2"].cut_analysis("weight", index=[5], dim=0)
    merged = merge_cut_dict(one, two, three)
    assert merged.operator["self.1.Conv"]["group"] == 3
    assert verify_cut(model, merged, x).equal
