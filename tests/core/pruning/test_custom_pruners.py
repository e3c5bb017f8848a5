"""A user's own pruner takes part, all or nothing, in either of the two ways to write one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.core.pruning.nets import assert_same, axes, cut, state
from torchpruner_core import module_pruner, recovery_cut, recovery_zero, set_cut, set_zero
from torchpruner_core.errors import ModulePrunerError
from torchpruner_core.module_pruner import BasePruner, LayerChange, ParameterPruner


class Scaled(nn.Module):
    """A layer of a user: a weight, a bias, and two attributes that repeat their sizes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, 3))
        self.bias = nn.Parameter(torch.randn(width))
        self.width = width
        self.sizes = [width, 3]
        self.child = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.child((x @ self.weight.t() + self.bias).view(-1, self.width))


def model() -> nn.Module:
    net = nn.ModuleDict({"scaled": Scaled(5)})
    net["scaled"](torch.randn(2, 3)).sum().backward()
    return net


RESULT = cut(
    {
        "self.scaled.weight": axes(2, a0=[1, 2]),
        "self.scaled.bias": axes(1, a0=[1, 2]),
        "self.scaled.child.weight": axes(2, a1=[1, 2]),
    }
)


class Declares(BasePruner):
    def attributes(self, nn_module: nn.Module, change: LayerChange) -> dict[str, Any]:
        width = change.after["bias"][0]
        return {"width": width, "sizes": [width, 3]}


class Does(BasePruner):
    """As the manual writes one, without a recovery of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.weight_pruner = ParameterPruner(name + ".weight")
        self.bias_pruner = ParameterPruner(name + ".bias")

    def set_cut(self, nn_module: Any, cut_dict: Any) -> Any:
        nn_module.weight, one = self.weight_pruner.set_cut(nn_module.weight, cut_dict)
        nn_module.bias, two = self.bias_pruner.set_cut(nn_module.bias, cut_dict)
        nn_module.width = nn_module.weight.data.size(0)
        nn_module.sizes[0] = nn_module.width
        return nn_module, {**one, **two}


class DoesAndUndoes(Does):
    def recovery_cut(self, nn_module: Any, cut_dict: Any, context: Any) -> Any:
        nn_module.weight = self.weight_pruner.recovery_cut(nn_module.weight, cut_dict, context)
        nn_module.bias = self.bias_pruner.recovery_cut(nn_module.bias, cut_dict, context)
        nn_module.width = nn_module.weight.data.size(0)
        nn_module.sizes[0] = nn_module.width
        return nn_module


class MakesNewParameters(BasePruner):
    def set_cut(self, nn_module: Any, cut_dict: Any) -> Any:
        nn_module.weight = nn.Parameter(nn_module.weight.data[[0, 3, 4]])
        nn_module.width, nn_module.sizes = 3, [3, 3]
        return nn_module, None


@pytest.mark.parametrize("pruner", [Declares, Does, DoesAndUndoes, MakesNewParameters])
def test_a_pruner_takes_part_and_everything_comes_back(pruner: type[BasePruner]) -> None:
    net = model()
    before = state(net)
    with module_pruner.module_pruner_reg.temporarily(Scaled, pruner):
        _, context = set_cut(net, RESULT)
        assert net["scaled"].width == 3 and net["scaled"].sizes == [3, 3]
        assert net["scaled"](torch.randn(2, 3)).shape == (2, 2)
        recovery_cut(net, RESULT, context)
    assert net["scaled"].sizes == [5, 3]
    assert_same(before, state(net))


class FailsInTheMiddle(Does):
    def set_cut(self, nn_module: Any, cut_dict: Any) -> Any:
        super().set_cut(nn_module, cut_dict)
        nn_module.extra = "left behind"
        nn_module.child.weight.data.zero_()
        raise ZeroDivisionError("oh")


class ReturnsAnother(BasePruner):
    def set_cut(self, nn_module: Any, cut_dict: Any) -> Any:
        return nn.Identity(), {}


class LeavesAWrongShape(BasePruner):
    def set_cut(self, nn_module: Any, cut_dict: Any) -> Any:
        nn_module.weight.data = nn_module.weight.data[:2]
        return nn_module, {}


@pytest.mark.parametrize(
    ("pruner", "message"),
    [
        (FailsInTheMiddle, "ZeroDivisionError: oh"),
        (ReturnsAnother, "must return the module it was given"),
        (LeavesAWrongShape, r"with the shape \(2, 3\)"),
    ],
)
def test_a_failure_puts_everything_back(pruner: type[BasePruner], message: str) -> None:
    net = model()
    before = state(net)
    with (
        module_pruner.module_pruner_reg.temporarily(Scaled, pruner),
        pytest.raises(ModulePrunerError, match=message),
    ):
        set_cut(net, RESULT)
    assert_same(before, state(net))


class UndoesWrongly(Does):
    def recovery_cut(self, nn_module: Any, cut_dict: Any, context: Any) -> Any:
        nn_module.width = 99
        raise KeyError("lost")


def test_a_failing_recovery_leaves_the_model_pruned() -> None:
    net = model()
    with module_pruner.module_pruner_reg.temporarily(Scaled, UndoesWrongly):
        _, context = set_cut(net, RESULT)
        after = state(net)
        with pytest.raises(ModulePrunerError, match="left pruned"):
            recovery_cut(net, RESULT, context)
    assert_same(after, state(net))


class ZeroesToo(Does):
    def set_zero(self, nn_module: Any, cut_dict: Any) -> Any:
        nn_module.weight, one = self.weight_pruner.set_zero(nn_module.weight, cut_dict)
        nn_module.zeroed = True
        return nn_module, one

    def recovery_zero(self, nn_module: Any, cut_dict: Any, context: Any) -> Any:
        nn_module.weight = self.weight_pruner.recovery_zero(nn_module.weight, cut_dict, context)
        del nn_module.zeroed
        return nn_module


def test_its_own_zeroing_is_used_and_undone() -> None:
    net = model()
    before = state(net)
    with module_pruner.module_pruner_reg.temporarily(Scaled, ZeroesToo):
        _, context = set_zero(net, RESULT)
        assert net["scaled"].zeroed
        assert not net["scaled"].weight[[1, 2]].any() and not net["scaled"].bias[[1, 2]].any()
        recovery_zero(net, RESULT, context)
    assert_same(before, state(net))


class TestRegister:
    def test_a_second_registration_replaces_with_a_warning(self) -> None:
        register = module_pruner.ModulePrunerRegister()
        register.regist(nn.Conv2d, Does)
        with pytest.warns(UserWarning, match="Declares replaces Does as the pruner of Conv2d"):
            register.regist(nn.Conv2d, Declares)
        assert register.get(nn.Conv2d) is Declares

    def test_subclasses_inherit_the_nearest(self) -> None:
        register = module_pruner.ModulePrunerRegister()
        register.regist(nn.Module, Does)
        register.regist(nn.Conv2d, Declares)
        assert register.get(nn.LazyConv2d) is Declares
        assert register.get(nn.Linear) is Does

    @pytest.mark.parametrize("pair", [(nn.ReLU(), Does), (nn.ReLU, Does("x")), (nn.ReLU, int)])
    def test_what_is_no_class_or_no_pruner_is_refused(self, pair: Any) -> None:
        with pytest.raises(TypeError):
            module_pruner.ModulePrunerRegister().regist(*pair)


def test_the_base_pruner_alone_cuts_and_restores_a_module() -> None:
    net = model()
    before = state(net)
    pruner = Declares("self.scaled")
    scaled, context = pruner.set_cut(net["scaled"], RESULT)
    assert scaled.weight.shape == (3, 3) and scaled.width == 3
    pruner.recovery_cut(scaled, RESULT, context)
    assert_same(before, state(net))
