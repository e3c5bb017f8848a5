"""``set_cut`` shortens a model in place, all or nothing, and ``recovery_cut`` puts it back."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from tests.core.pruning.nets import ConvNet, assert_same, axes, conv_net_cut, cut, state
from torchpruner_core import CutResult, recovery_cut, recovery_zero, set_cut, set_zero
from torchpruner_core.errors import (
    ContextMismatchError,
    CutMismatchError,
    UnsupportedModuleError,
)


def trained(model: nn.Module, *shape: int) -> nn.Module:
    model(torch.randn(*shape)).sum().backward()
    return model


def test_a_cut_network_computes_what_the_masked_one_does() -> None:
    model = trained(ConvNet(), 2, 3, 9, 9).eval()
    masked, _ = set_zero(copy.deepcopy(model), conv_net_cut([0, 5]))
    x = torch.randn(2, 3, 9, 9)
    set_cut(model, conv_net_cut([0, 5]))
    assert model[0].weight.shape == (6, 3, 3, 3)
    assert (model[0].out_channels, model[1].num_features, model[3].in_channels) == (6, 6, 6)
    torch.testing.assert_close(model(x), masked(x))


def test_recovery_is_bit_for_bit_after_a_round_trip_of_the_context_through_pickle() -> None:
    model = trained(ConvNet(), 2, 3, 9, 9)
    before = state(model)
    result = conv_net_cut([1, 2, 7])
    _, context = set_cut(model, result)
    recovery_cut(model, CutResult.from_json(result.to_json()), pickle.loads(pickle.dumps(context)))
    assert_same(before, state(model))


def test_parameters_keep_their_identity_and_gradients_are_cut_along() -> None:
    model = trained(ConvNet(), 2, 3, 9, 9)
    weight, grad = model[0].weight, model[0].weight.grad.clone()
    set_cut(model, conv_net_cut([0]))
    assert model[0].weight is weight
    assert torch.equal(weight.grad, grad[1:])


def test_what_was_learnt_in_between_survives_recovery() -> None:
    model = ConvNet()
    result = conv_net_cut([0])
    old = model[0].weight.detach().clone()
    _, context = set_cut(model, result)
    with torch.no_grad():
        model[0].weight += 1
    recovery_cut(model, result, context)
    assert torch.equal(model[0].weight[0], old[0])
    assert torch.equal(model[0].weight[1:], old[1:] + 1)


def test_a_gradient_cleared_in_between_stays_cleared_and_a_new_one_gets_zeros() -> None:
    model = trained(ConvNet(), 2, 3, 9, 9)
    result = conv_net_cut([0])
    _, context = set_cut(model, result)
    model.zero_grad()
    model[3](torch.randn(1, 7, 5, 5)).sum().backward()
    recovery_cut(model, result, context)
    assert model[0].weight.grad is None
    assert model[3].weight.grad.shape == (4, 8, 3, 3)
    assert not model[3].weight.grad[:, 0].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_requires_grad_and_memory_layout_stay(dtype: torch.dtype) -> None:
    model = ConvNet().to(dtype).to(memory_format=torch.channels_last)
    model[3].weight.requires_grad_(False)
    before = state(model)
    _, context = set_cut(model, conv_net_cut([0, 1]))
    assert model[0].weight.dtype is dtype and not model[3].weight.requires_grad
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    recovery_cut(model, conv_net_cut([0, 1]), context)
    assert_same(before, state(model))


def test_a_model_on_the_meta_device_is_cut() -> None:
    with torch.device("meta"):
        model = ConvNet()
    set_cut(model, conv_net_cut([0]))
    assert model[3].weight.shape == (4, 7, 3, 3) and model[3].weight.is_meta


def test_the_manuals_plain_dict_with_empty_lists_is_a_cut() -> None:
    plain = {
        "terminal": {
            name: [[] if a is None else a.tolist() for a in entry]
            for name, entry in conv_net_cut([0, 1]).terminal.items()
        },
        "iner": {},
        "operator": {},
    }
    model = ConvNet()
    before = state(model)
    _, context = set_cut(model, plain)
    assert model[1].weight.shape == (6,)
    recovery_cut(model, plain, context)
    assert_same(before, state(model))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids))


def test_a_tied_parameter_is_cut_once_and_both_modules_follow() -> None:
    model = Tied()
    before = state(model)
    result = cut({"self.embed.weight": axes(2, a1=[0, 3])})
    _, context = set_cut(model, result)
    assert model.head.weight is model.embed.weight
    assert (model.embed.embedding_dim, model.head.in_features) == (4, 4)
    assert model(torch.tensor([1, 2])).shape == (2, 11)
    recovery_cut(model, result, context)
    assert_same(before, state(model))


def test_names_of_one_tied_tensor_that_disagree_are_refused() -> None:
    model = Tied()
    result = cut({"self.embed.weight": axes(2, a1=[0]), "self.head.weight": axes(2, a1=[1])})
    with pytest.raises(CutMismatchError, match="one tensor"):
        set_cut(model, result)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"self.9.weight": axes(1, a0=[0])}, "no module self.9"),
        ({"self.0.wheight": axes(1, a0=[0])}, "holds no such tensor"),
        ({"self.0.bias": axes(2, a0=[0])}, "has 1 axes"),
        ({"self.0.bias": axes(1, a0=[8])}, "index 8"),
        ({"self.0.bias": axes(1, a0=[-1])}, "index -1"),
        ({"self.0.bias": axes(1, a0=list(range(8)))}, "leave nothing"),
        ({"self.0.bias": axes(1, a0=[0, 1])}, "output channels"),
    ],
)
def test_a_cut_that_does_not_fit_is_refused_before_anything_changes(
    change: dict[str, Any], message: str
) -> None:
    model = trained(ConvNet(), 2, 3, 9, 9)
    before = state(model)
    with pytest.raises(Exception, match=message) as caught:
        set_cut(model, cut({**conv_net_cut([0]).terminal, **change}))
    assert caught.value.to_problem()["type"] in ("cut-mismatch", "module-pruner-failed")
    assert_same(before, state(model))


def test_a_cut_made_for_other_shapes_is_refused() -> None:
    result = cut(conv_net_cut([0]).terminal, shapes={"self.0.weight": (16, 3, 3, 3)})
    with pytest.raises(CutMismatchError, match=r"made for \(16, 3, 3, 3\)"):
        set_cut(ConvNet(), result)


def test_cutting_twice_with_one_result_is_refused_where_the_shapes_are_known() -> None:
    model = ConvNet()
    shapes = {name: tuple(t.shape) for name, t in model.named_parameters(prefix="self")}
    result = cut(conv_net_cut([0]).terminal, shapes=shapes)
    set_cut(model, result)
    with pytest.raises(CutMismatchError, match="was it cut already"):
        set_cut(model, result)


def test_something_that_is_no_cut_is_refused() -> None:
    with pytest.raises(CutMismatchError, match="what cut_analysis returns"):
        set_cut(ConvNet(), ConvNet())  # type: ignore[arg-type]


class TestContext:
    def test_the_model_in_its_place_is_refused(self) -> None:
        model = ConvNet()
        set_cut(model, conv_net_cut([0]))
        with pytest.raises(ContextMismatchError, match="third argument is the context"):
            recovery_cut(model, conv_net_cut([0]), model)  # type: ignore[arg-type]

    def test_of_another_cut_is_refused(self) -> None:
        model = ConvNet()
        _, context = set_cut(model, conv_net_cut([0]))
        after = state(model)
        with pytest.raises(ContextMismatchError, match="another cut"):
            recovery_cut(model, conv_net_cut([1]), context)
        assert_same(after, state(model))

    def test_of_another_model_is_refused(self) -> None:
        model, other = ConvNet(), ConvNet()
        _, context = set_cut(model, conv_net_cut([0]))
        set_cut(other, conv_net_cut([0]))
        with pytest.raises(ContextMismatchError, match="not in force"):
            recovery_cut(other, conv_net_cut([0]), context)

    def test_of_a_checkpoint_restores_the_model_rebuilt_for_it(self) -> None:
        model, result = ConvNet(), conv_net_cut([0, 5])
        original = copy.deepcopy(model.state_dict())
        _, context = set_cut(model, result)
        saved = pickle.dumps((model.state_dict(), context))

        rebuilt = ConvNet()
        set_cut(rebuilt, result)
        weights, context = pickle.loads(saved)
        rebuilt.load_state_dict(weights)
        recovery_cut(rebuilt, result, context)
        assert all(torch.equal(v, original[k]) for k, v in rebuilt.state_dict().items())

        with pytest.raises(ContextMismatchError):
            recovery_cut(rebuilt, result, context)
        set_cut(rebuilt, result)
        with pytest.raises(ContextMismatchError, match="undone already"):
            recovery_cut(rebuilt, result, context)

    def test_of_set_zero_is_refused(self) -> None:
        model = ConvNet()
        _, context = set_zero(model, conv_net_cut([0]))
        with pytest.raises(ContextMismatchError, match="recovery_zero"):
            recovery_cut(model, conv_net_cut([0]), context)

    def test_used_twice_is_refused(self) -> None:
        model = ConvNet()
        _, context = set_cut(model, conv_net_cut([0]))
        recovery_cut(model, conv_net_cut([0]), context)
        with pytest.raises(ContextMismatchError):
            recovery_cut(model, conv_net_cut([0]), context)

    def test_nested_cuts_are_undone_newest_first(self) -> None:
        model = ConvNet()
        before = state(model)
        _, first = set_cut(model, conv_net_cut([0, 1]))
        between = state(model)
        _, second = set_cut(model, conv_net_cut([3]))
        after = state(model)
        with pytest.raises(ContextMismatchError, match="undo that one first"):
            recovery_cut(model, conv_net_cut([0, 1]), first)
        assert_same(after, state(model))
        recovery_cut(model, conv_net_cut([3]), second)
        assert_same(between, state(model))
        recovery_cut(model, conv_net_cut([0, 1]), first)
        assert_same(before, state(model))

    def test_cuts_of_different_tensors_are_undone_in_any_order(self) -> None:
        model = nn.ModuleList([ConvNet(), ConvNet()])
        before = state(model)
        cuts = [
            cut({n.replace("self", f"self.{i}"): a for n, a in conv_net_cut([i]).terminal.items()})
            for i in range(2)
        ]
        contexts = [set_cut(model, result)[1] for result in cuts]
        recovery_cut(model, cuts[0], contexts[0])
        recovery_cut(model, cuts[1], contexts[1])
        assert_same(before, state(model))

    def test_a_copied_pruned_model_can_be_restored(self) -> None:
        model = ConvNet()
        original = {k: v.clone() for k, v in model.state_dict().items()}
        _, context = set_cut(model, conv_net_cut([0]))
        twin = pickle.loads(pickle.dumps(model))
        recovery_cut(twin, conv_net_cut([0]), context)
        assert all(torch.equal(v, original[k]) for k, v in twin.state_dict().items())


class TestWrappers:
    def test_data_parallel_is_looked_through(self) -> None:
        model = nn.DataParallel(ConvNet())
        returned, context = set_cut(model, conv_net_cut([0]))
        assert returned is model and model.module[0].out_channels == 7
        recovery_cut(model, conv_net_cut([0]), context)
        assert model.module[0].out_channels == 8

    def test_a_compiled_model_is_looked_through_and_compiles_again(self) -> None:
        model = ConvNet().eval()
        compiled = torch.compile(model, backend="eager")
        x = torch.randn(1, 3, 9, 9)
        compiled(x)
        _, context = set_cut(compiled, conv_net_cut([0, 1]))
        torch.testing.assert_close(compiled(x), model(x))
        assert model[0].out_channels == 6
        recovery_cut(compiled, conv_net_cut([0, 1]), context)
        torch.testing.assert_close(compiled(x), model(x))

    def test_a_script_module_is_refused_with_the_reason(self) -> None:
        scripted = torch.jit.script(ConvNet())
        with pytest.raises(UnsupportedModuleError, match=r"cut the nn\.Module it was made from"):
            set_cut(scripted, conv_net_cut([0]))

    def test_a_distributed_wrapper_trains_on_after_the_cut(self, tmp_path: Any) -> None:
        dist = torch.distributed
        if not dist.is_available():
            pytest.skip("torch without distributed")
        dist.init_process_group(
            "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
        )
        try:
            model = nn.parallel.DistributedDataParallel(ConvNet())
            x = torch.randn(2, 3, 9, 9)
            model(x).sum().backward()
            set_cut(model, conv_net_cut([0, 1]))
            model.zero_grad()
            model(x).sum().backward()
            assert model.module[0].weight.grad.shape == (6, 3, 3, 3)
        finally:
            dist.destroy_process_group()


class TestHooksAndParametrizations:
    def test_gradient_hooks_run_on_the_smaller_parameter(self) -> None:
        model = trained(ConvNet(), 2, 3, 9, 9)
        seen: list[torch.Size] = []
        model[0].weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.shape))
        set_cut(model, conv_net_cut([0]))
        trained(model, 2, 3, 9, 9)
        assert seen == [torch.Size([7, 3, 3, 3])]

    def test_weight_norm_is_cut_through_its_own_parameters(self) -> None:
        model = nn.Sequential(
            torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)), nn.Conv2d(8, 4, 3)
        )
        before = state(model)
        original = "self.0.parametrizations.weight"
        result = cut(
            {
                f"{original}.original0": axes(4, a0=[0]),
                f"{original}.original1": axes(4, a0=[0]),
                "self.0.bias": axes(1, a0=[0]),
                "self.1.weight": axes(4, a1=[0]),
            }
        )
        _, context = set_cut(model, result)
        assert model[0].out_channels == 7 and model[0].weight.shape == (7, 3, 3, 3)
        assert model(torch.randn(1, 3, 9, 9)).shape == (1, 4, 5, 5)
        recovery_cut(model, result, context)
        assert_same(before, state(model))

    def test_the_older_weight_norm_is_cut_too(self) -> None:
        with pytest.warns(FutureWarning):
            model = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 8)), nn.Linear(8, 2))
        result = cut(
            {
                "self.0.weight_g": axes(2, a0=[0]),
                "self.0.weight_v": axes(2, a0=[0]),
                "self.0.bias": axes(1, a0=[0]),
                "self.1.weight": axes(2, a1=[0]),
            }
        )
        set_cut(model, result)
        assert model[0].out_features == 7
        assert model(torch.randn(1, 3)).shape == (1, 2)

    def test_a_computed_weight_is_refused_with_the_next_step(self) -> None:
        model = nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(nn.Linear(3, 8)))
        with pytest.raises(UnsupportedModuleError, match="remove_parametrizations"):
            set_cut(model, cut({"self.0.weight": axes(2, a0=[0])}))


class TestInferenceMode:
    def test_a_model_that_is_cut_there_can_be_trained_afterwards(self) -> None:
        model, result = ConvNet(), conv_net_cut([0, 5])
        with torch.inference_mode():
            _, context = set_cut(model, result)
        trained(model, 2, 3, 9, 9)
        with torch.inference_mode():
            recovery_cut(model, result, context)
            _, context = set_zero(model, result)
            recovery_zero(model, result, context)
        assert not any(t.is_inference() for t in model.state_dict().values())
        model.zero_grad()
        trained(model, 2, 3, 9, 9)

    def test_a_model_that_was_made_there_is_cut_and_restored(self) -> None:
        with torch.inference_mode():
            model = ConvNet().eval()
        result = conv_net_cut([0, 5])
        original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        _, context = set_cut(model, result)
        assert model[0].weight.shape[0] == 6
        recovery_cut(model, result, context)
        assert all(torch.equal(v, original[k]) for k, v in model.state_dict().items())


def test_an_averaged_model_is_looked_through() -> None:
    model = ConvNet()
    average = torch.optim.swa_utils.AveragedModel(model)
    set_cut(average, conv_net_cut([0]))
    set_cut(model, conv_net_cut([0]))
    average.update_parameters(model)
    assert average.module[0].out_channels == 7
