"""Finding and replacing modules, beyond the manual's own examples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from torchpruner_core import model_tools
from torchpruner_core.errors import UnknownObjectError


def model() -> nn.Module:
    return nn.ModuleDict(
        {"body": nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "heads": nn.ModuleList([nn.ReLU6()])}
    )


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrappers_are_looked_through(wrap: Any) -> None:
    net = model()
    assert model_tools.get_object(wrap(net), "self.body.1") is net["body"][1]
    assert model_tools.get_names_by_class(wrap(net), nn.ReLU) == ["self.body.1"]


def test_the_model_its_parameters_and_attributes_are_objects_too() -> None:
    net = model()
    assert model_tools.get_object(net, "self") is net
    assert model_tools.get_object(net, "self.body.0.weight") is net["body"][0].weight
    assert model_tools.get_object(net, "self.body.0.in_features") == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("body.0", "start with 'self'"),
        ("self.body.7", r"self.body \(Sequential\) has no '7'; it has 0, 1"),
        ("self.neck.0", "self .ModuleDict. has no 'neck'"),
    ],
)
def test_a_name_that_is_none_is_told_where_it_breaks(name: str, message: str) -> None:
    with pytest.raises(UnknownObjectError, match=message):
        model_tools.get_object(model(), name)
    with pytest.raises(UnknownObjectError):
        model_tools.set_object(model(), name, nn.Identity())


def test_an_entry_of_a_list_and_the_model_itself_are_set() -> None:
    net = model()
    assert model_tools.set_object(net, "self.heads.0", nn.GELU()) is net
    assert isinstance(net["heads"][0], nn.GELU)
    other = nn.Identity()
    assert model_tools.set_object(net, "self", other) is other


def test_several_classes_and_subclasses_are_found_in_registration_order() -> None:
    net = model()
    names = model_tools.get_names_by_class(net, [nn.ReLU, nn.ReLU6])
    assert names == ["self.body.1", "self.heads.0"]
    assert model_tools.get_names_by_class(net, nn.Hardtanh) == ["self.heads.0"]
    assert model_tools.get_names_by_class(net, nn.Hardtanh, include_super_class=False) == []


def test_a_group_that_is_not_replaced_whole_is_left_alone() -> None:
    net = model()
    with pytest.raises(ValueError, match="returned 1 modules for the 2"):
        model_tools.replace_object_by_name_groups(
            net, [["self.body.0", "self.body.1"]], lambda names, modules: [nn.Identity()]
        )
    assert isinstance(net["body"][0], nn.Linear)


def test_a_replacement_that_fails_half_way_replaces_nothing() -> None:
    net = model()
    before = dict(net.named_modules())

    def forgets(name: str, module: Any) -> Any:
        return nn.Identity() if name == "self.body.0" else None

    with pytest.raises(UnknownObjectError):
        model_tools.replace_object_by_names(
            net, ["self.body.0", "self.9"], lambda n, m: nn.Identity()
        )
    with pytest.raises(TypeError, match=r"returned None for self\.body\.1"):
        model_tools.replace_object_by_names(net, ["self.body.0", "self.body.1"], forgets)
    with pytest.raises(ValueError, match="returned 1 modules"):
        model_tools.replace_object_by_name_groups(
            net,
            [["self.body.0"], ["self.body.1", "self.heads.0"]],
            lambda names, old: [nn.Identity()],
        )

    assert dict(net.named_modules()) == before


def test_what_is_no_class_or_no_graph_is_refused() -> None:
    with pytest.raises(TypeError, match="by a class"):
        model_tools.get_names_by_class(model(), "Conv2d")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="built ONNXGraph"):
        model_tools.get_name_groups_by_classes(model(), [nn.Conv2d])
    with pytest.raises(UnknownObjectError, match="start with 'self'"):
        model_tools.get_object(model(), None)  # type: ignore[arg-type]
