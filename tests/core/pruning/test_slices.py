"""One tensor without its slices, and with them again."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch

from torchpruner_core.errors import CutMismatchError, UnsupportedModuleError
from torchpruner_core.pruning.tensors import slices

GONE = np.array([1, 3])


def tensor(*shape: int) -> torch.Tensor:
    return torch.arange(1.0, 1 + np.prod(shape)).reshape(shape)


def leaf(*shape: int) -> torch.nn.Parameter:
    made = torch.nn.Parameter(tensor(*shape))
    made.grad = -tensor(*shape)
    return made


def test_indices_come_back_sorted_and_once_each() -> None:
    first, second, third = slices.read_axes([None, [3, 0, 3], []], (2, 5, 4))
    assert first is None and third is None and second is not None
    assert second.tolist() == [0, 3] and second.dtype == np.int64
    (every_but_one,) = slices.read_axes([[0, 1]], (3,))
    assert every_but_one is not None and every_but_one.tolist() == [0, 1]
    (unsigned,) = slices.read_axes([np.array([2], dtype=np.uint8)], (3,))
    assert unsigned is not None and unsigned.dtype == np.int64


@pytest.mark.parametrize(
    ("cut_dims", "detail", "fields"),
    [
        (
            [None],
            "conv.weight has 2 axes (4, 3), and the cut names 1: analyse this very model and cut it "
            "with that result",
            {"expected": 1, "received": 2},
        ),
        (
            [[1.0], None],
            "the indices of conv.weight along axis 0 are not a list of integers: [1.0]",
            {"axis": 0},
        ),
        (
            [None, [[0, 1]]],
            "the indices of conv.weight along axis 1 are not a list of integers: [[0, 1]]",
            {"axis": 1},
        ),
        (
            [None, [True]],
            "the indices of conv.weight along axis 1 are not a list of integers: [True]",
            {"axis": 1},
        ),
        (
            [[0, 1, 4], None],
            "conv.weight has 4 slices along axis 0, and the cut removes index 4: was it cut already, "
            "or is this another model?",
            {"axis": 0, "expected": "indices below 4", "received": 4},
        ),
        (
            [None, [-1, 0]],
            "conv.weight has 3 slices along axis 1, and the cut removes index -1: was it cut already, "
            "or is this another model?",
            {"axis": 1, "expected": "indices below 3", "received": -1},
        ),
        (
            [None, [0, 1, 2]],
            "the cut would leave nothing of conv.weight along axis 1 (3 slices)",
            {"axis": 1, "expected": "at most 2 indices", "received": 3},
        ),
    ],
)
def test_a_cut_that_does_not_fit_says_where_and_what_would(cut_dims, detail, fields) -> None:
    with pytest.raises(CutMismatchError) as caught:
        slices.read_axes(cut_dims, (4, 3), "conv.weight")
    assert caught.value.detail == detail
    assert caught.value.fields == {"node": "conv.weight", **fields}
    with pytest.raises(CutMismatchError) as caught:
        slices.read_axes(cut_dims, (4, 3))
    assert caught.value.detail == detail.replace("conv.weight", "the tensor")


def test_what_stays_is_the_rest() -> None:
    left = slices.kept(GONE, 5)
    assert left.tolist() == [0, 2, 4] and left.dtype == np.int64
    assert slices.shape_after((4, 5, 2), [None, GONE, np.array([0])]) == (4, 3, 1)
    with pytest.raises(ValueError, match="argument"):
        slices.shape_after((4, 5), [None])


def test_every_element_is_kept_once_and_comes_back_in_its_place() -> None:
    data = tensor(4, 5, 3)
    axes = [np.array([0]), None, np.array([1, 2])]
    left, removed = slices.cut_data(data, axes)
    assert torch.equal(left, data[1:, :, :1])
    assert removed.shape == (4, 5, 3) and removed.order == (0, 1, 2) and removed.grad is None
    first, second, third = removed
    assert first is not None and second is None and third is not None
    assert torch.equal(first, data[:1]) and torch.equal(third, data[1:, :, 1:])
    assert left.numel() + first.numel() + third.numel() == data.numel()
    assert torch.equal(slices.restore_data(left, axes, removed), data)
    assert torch.equal(data, tensor(4, 5, 3))


def test_without_slices_a_value_is_put_in_their_place() -> None:
    data = tensor(4, 3)
    axes = [GONE, np.array([0])]
    left, _ = slices.cut_data(data, axes)
    for arguments, fill in (((None,), 0.0), ((None, 7.0), 7.0)):
        whole = slices.restore_data(left, axes, *arguments)
        assert torch.equal(whole[::2, 1:], left)
        assert bool((whole[GONE] == fill).all()) and bool((whole[:, 0] == fill).all())


def test_slices_of_another_shape_are_refused() -> None:
    left = tensor(2, 3)
    wrong = tensor(1, 3)
    with pytest.raises(CutMismatchError) as caught:
        slices.restore_data(left, [GONE, None], [wrong, None])
    assert caught.value.detail == (
        "the removed slices do not fit a tensor of shape (2, 3) along axis 0"
    )
    assert caught.value.fields == {"axis": 0, "expected": [2, 3], "received": [1, 3]}
    with pytest.raises(CutMismatchError) as caught:
        slices.restore_data(tensor(2, 1, 3, 2), [None, np.array([1]), None, None], [None] * 4)
    assert caught.value.fields == {
        "axis": 1,
        "expected": [2, 1, 3, 2],
        "received": None,
    }


def test_slices_of_another_precision_take_that_of_the_tensor() -> None:
    axes = [GONE]
    left, removed = slices.cut_data(tensor(4).double(), axes)
    whole = slices.restore_data(left.float(), axes, removed)
    assert whole.dtype is torch.float32 and torch.equal(whole, tensor(4))
    assert torch.equal(slices.restore_data(left, axes, removed), tensor(4).double())
    zeroed = tensor(4)
    slices.recovery_zero_tensor(zeroed, axes, [tensor(2).double()])
    assert zeroed.tolist() == [1, 1, 3, 2]


def test_the_layout_in_memory_comes_back() -> None:
    image = tensor(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert slices.memory_order(image) == (0, 2, 3, 1)
    axes = [None, np.array([0]), None, None]
    left, removed = slices.cut_data(image, axes)
    assert left.stride() == (40, 1, 10, 2)
    assert slices.restore_data(left, axes, removed).stride() == image.stride()
    assert slices.restore_data(left, axes, list(removed)).stride() == image.stride()
    alone = slices.restore_data(left[:, :1].contiguous(), [None, np.array([0]), None, None], None)
    assert alone.is_contiguous()
    # What the tensor is like by now does not count: its order before the cut does.
    assert slices.restore_data(left.contiguous(), axes, removed).stride() == image.stride()


def test_what_says_nothing_about_the_layout_keeps_its_place() -> None:
    assert slices.memory_order(torch.empty_strided((2, 1, 3), (3, 100, 1))) == (0, 1, 2)
    assert slices.memory_order(tensor(2, 1).expand(2, 4)) == (0, 1)
    assert slices.memory_order(tensor(2, 3).T.expand(4, 3, 2)) == (0, 1, 2)
    assert slices.memory_order(tensor(2, 3).to_sparse()) == (0, 1)
    assert slices.memory_order(torch.tensor(1.0)) == ()
    # Two axes of one stride: neither is outside the other.
    assert slices.memory_order(torch.empty_strided((3, 2, 2), (1, 3, 3))) == (1, 2, 0)


def test_a_laid_out_tensor_is_dense_in_its_order() -> None:
    every_other = tensor(8)[::2]
    assert slices.laid_out(every_other, (0,)).is_contiguous()
    turned = slices.laid_out(tensor(2, 3, 4), (2, 0, 1))
    assert turned.stride() == (3, 1, 6) and torch.equal(turned, tensor(2, 3, 4))
    scalar, sparse = torch.tensor(1.0), tensor(2, 3).to_sparse()
    assert slices.laid_out(scalar, ()) is scalar and slices.laid_out(sparse, (1, 0)) is sparse


def test_a_tensor_is_shortened_with_its_gradient_and_gets_both_back() -> None:
    weight, other = leaf(4, 3), leaf(4)
    same, removed = slices.set_cut_tensor(weight, [GONE, []])
    slices.set_cut_tensor(other, [GONE])
    assert same is weight and weight.requires_grad and weight.grad is not None
    assert torch.equal(weight.detach(), tensor(4, 3)[::2])
    assert torch.equal(weight.grad, -tensor(4, 3)[::2])
    assert slices.recovery_cut_tensor(weight, [GONE, []], removed) is weight
    assert torch.equal(weight.detach(), tensor(4, 3)) and torch.equal(weight.grad, -tensor(4, 3))


def test_recovery_counts_along_every_axis_and_fills_with_zeros_where_nothing_was_kept() -> None:
    weight = leaf(4, 3)
    slices.set_cut_tensor(weight, [GONE, [0]])
    slices.recovery_cut_tensor(weight, [GONE, [0]], None)
    expected = tensor(4, 3)
    expected[GONE] = 0
    expected[:, 0] = 0
    assert torch.equal(weight.detach(), expected)
    assert weight.grad is not None and torch.equal(weight.grad, -expected)
    with pytest.raises(ValueError, match="argument"):
        slices.recovery_cut_tensor(weight, [GONE], None)


def test_a_gradient_of_another_backward_gets_zeros() -> None:
    weight = leaf(4)
    _, removed = slices.set_cut_tensor(weight, [GONE])
    weight.grad = torch.ones(2)
    slices.recovery_cut_tensor(weight, [GONE], removed)
    assert weight.grad.tolist() == [1, 0, 1, 0] and weight.tolist() == [1, 2, 3, 4]


def test_a_list_of_slices_without_a_gradient_gives_zeros_there() -> None:
    weight = leaf(4)
    _, removed = slices.set_cut_tensor(weight, [GONE])
    slices.recovery_cut_tensor(weight, [GONE], list(removed))
    assert weight.grad is not None and weight.grad.tolist() == [-1, 0, -3, 0]


def test_a_cleared_gradient_stays_cleared() -> None:
    weight = leaf(4)
    _, removed = slices.set_cut_tensor(weight, [GONE])
    weight.grad = None
    slices.recovery_cut_tensor(weight, [GONE], removed)
    assert weight.grad is None and weight.tolist() == [1, 2, 3, 4]


def test_a_sparse_gradient_is_cut_as_a_dense_one() -> None:
    weight = leaf(4, 3)
    weight.grad = tensor(4, 3).to_sparse()
    slices.set_cut_tensor(weight, [GONE, None])
    assert torch.equal(weight.grad, tensor(4, 3)[::2])


def test_the_gradient_of_a_computed_tensor_is_not_asked_for() -> None:
    computed = leaf(4) * 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert slices.cut_gradient(computed, [GONE], slices.RemovedSlices()) is None
        assert slices.restored_gradient(computed, [GONE], None) is None


def test_removed_slices_travel_with_all_they_know() -> None:
    weight = leaf(4)
    _, removed = slices.set_cut_tensor(weight, [GONE])
    again = pickle.loads(pickle.dumps(removed))
    assert isinstance(again, slices.RemovedSlices) and again.token == removed.token
    assert again.shape == (4,) and again.order == (0,) and again.grad is not None
    assert again.grad[0] is not None and again.grad[0].tolist() == [-2, -4]


def test_zeroed_slices_come_back_and_the_rest_stays_as_it_is_by_now() -> None:
    weight = leaf(4, 3)
    same, removed = slices.set_zero_tensor(weight, [GONE, [0]])
    expected = tensor(4, 3)
    expected[GONE] = 0
    expected[:, 0] = 0
    assert same is weight and torch.equal(weight.detach(), expected)
    assert removed.shape == (4, 3) and removed.order == (0, 1)
    assert slices.recovery_zero_tensor(weight, [GONE, [0]], None) is weight
    assert torch.equal(weight.detach(), expected)
    with torch.no_grad():
        weight[0, 1] = 50.0
    assert slices.recovery_zero_tensor(weight, [GONE, [0]], removed) is weight
    expected = tensor(4, 3)
    expected[0, 1] = 50.0
    assert torch.equal(weight.detach(), expected)


def test_an_axis_that_is_not_cut_is_passed_over_in_both_directions() -> None:
    weight = leaf(2, 4, 3)
    _, removed = slices.set_zero_tensor(weight, [None, GONE, None])
    assert removed[0] is None and removed[2] is None
    assert bool((weight[:, GONE] == 0).all()) and bool((weight[:, ::2] != 0).all())
    slices.recovery_zero_tensor(weight, [None, GONE, None], removed)
    assert torch.equal(weight.detach(), tensor(2, 4, 3))


def test_a_tensor_without_values_is_cut_where_it_is() -> None:
    weight = torch.nn.Parameter(torch.empty(4, 3, device="meta"))
    _, removed = slices.set_cut_tensor(weight, [GONE, None])
    assert weight.is_meta and weight.shape == (2, 3) and removed[0] is not None
    assert removed[0].is_meta
    slices.recovery_cut_tensor(weight, [GONE, None], removed)
    assert weight.is_meta and weight.shape == (4, 3)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (
            lambda: torch.nn.UninitializedParameter(),
            "is not initialised yet: run the model once first",
        ),
        (
            lambda: tensor(4).to_sparse(),
            "has the layout torch.sparse_coo: make it dense first",
        ),
        (lambda: leaf(4) * 1, "is computed from other tensors: cut those"),
        (
            lambda: tensor(4).as_subclass(DTensor),
            "is spread over several processes: cut the model before it is sharded",
        ),
    ],
    ids=["lazy", "sparse", "computed", "sharded"],
)
def test_a_tensor_without_slices_of_its_own_says_what_to_do(made, reason) -> None:
    with pytest.raises(UnsupportedModuleError) as caught:
        slices.refuse_unsliceable(made(), "fc.weight")
    assert caught.value.detail == f"fc.weight {reason}"
    assert caught.value.fields == {"node": "fc.weight"}
    with pytest.raises(UnsupportedModuleError) as caught:
        slices.refuse_unsliceable(made())
    assert caught.value.detail == f"the tensor {reason}"
    slices.refuse_unsliceable(leaf(4))


class DTensor(torch.Tensor):
    """Named as a sharded tensor is: what tells it, since torch may come without distribution."""


def test_a_refused_tensor_is_left_as_it_was() -> None:
    computed = leaf(4) * 1
    for change in (slices.set_cut_tensor, slices.set_zero_tensor):
        with pytest.raises(UnsupportedModuleError):
            change(computed, [GONE])
    assert computed.tolist() == [1, 2, 3, 4]
