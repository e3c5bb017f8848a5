"""``set_zero`` masks a model in place and ``recovery_zero`` puts the values back bit for bit."""

from __future__ import annotations

import pickle

import pytest
import torch

from tests.core.pruning.nets import ConvNet, assert_same, axes, conv_net_cut, cut, state
from torchpruner_core import recovery_zero, set_cut, set_zero
from torchpruner_core.errors import ContextMismatchError, CutMismatchError


def test_zeroing_keeps_shapes_and_identity_and_comes_back() -> None:
    model = ConvNet().to(memory_format=torch.channels_last)
    model(torch.randn(2, 3, 9, 9)).sum().backward()
    before = state(model)
    result = conv_net_cut([0, 5])
    returned, context = set_zero(model, result)
    assert returned is model
    assert model[0].weight.shape == (8, 3, 3, 3)
    assert not model[0].weight[[0, 5]].any() and model[0].weight[[1, 2]].any()
    assert not model[3].weight[:, [0, 5]].any()
    recovery_zero(model, result, pickle.loads(pickle.dumps(context)))
    assert_same(before, state(model))


def test_slices_along_two_axes_of_one_tensor_come_back() -> None:
    model = ConvNet()
    before = state(model)
    result = cut({"self.0.weight": axes(4, a0=[1], a1=[0, 2], a3=[1])})
    _, context = set_zero(model, result)
    recovery_zero(model, result, context)
    assert_same(before, state(model))


def test_an_odd_value_comes_back_bit_for_bit() -> None:
    model = ConvNet()
    with torch.no_grad():
        model[0].weight[0, 0, 0] = torch.tensor([float("nan"), -0.0, float("inf")])
    bits = model[0].weight.detach().clone().view(torch.int32)
    result = conv_net_cut([0])
    _, context = set_zero(model, result)
    recovery_zero(model, result, context)
    assert torch.equal(model[0].weight.detach().view(torch.int32), bits)


def test_a_cut_that_does_not_fit_is_refused_before_anything_changes() -> None:
    model = ConvNet()
    before = state(model)
    with pytest.raises(CutMismatchError):
        set_zero(model, cut({**conv_net_cut([0]).terminal, "self.3.bias": axes(1, a0=[9])}))
    assert_same(before, state(model))


def test_a_wrong_context_is_refused() -> None:
    model = ConvNet()
    _, zeroed = set_zero(model, conv_net_cut([0]))
    with pytest.raises(ContextMismatchError, match="another cut"):
        recovery_zero(model, conv_net_cut([1]), zeroed)
    recovery_zero(model, conv_net_cut([0]), zeroed)
    _, shortened = set_cut(model, conv_net_cut([0]))
    with pytest.raises(ContextMismatchError, match="recovery_cut"):
        recovery_zero(model, conv_net_cut([0]), shortened)
