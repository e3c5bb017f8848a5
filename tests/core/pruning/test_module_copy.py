"""A shadow's copy is the copy that ``copy.deepcopy`` makes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from torchpruner_core.pruning.forward.module_copy import copied


class Odd(nn.Module):
    """Holds what modules hold: one child twice, a child in a list, itself, a table, a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.again = self.first
        self.hidden = [nn.Linear(4, 4), {"size": (4, 4)}]
        self.__dict__["home"] = self
        self.table: dict[str, Any] = {}
        self.same = self.table
        self.head = nn.Linear(4, 4)
        self.head.weight = self.hidden[0].weight  # type: ignore[union-attr]
        self.register_buffer("none", None)


class Counting(nn.Module):
    """Says itself how it is copied."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Counting:
        made = Counting()
        made.copies = self.copies + 1
        return made


def test_what_was_one_object_is_one_object() -> None:
    model = Odd().eval()
    double = copied(model, {})
    assert double is not model and double.home is double
    assert double.again is double.first is not model.first
    assert double.table is double.same is not model.table
    linear = double.hidden[0]
    assert isinstance(linear, nn.Linear) and linear is not model.hidden[0]
    assert double.head.weight is linear.weight and not double.training
    assert double.none is None and double.state_dict().keys() == model.state_dict().keys()
    x = torch.randn(1, 3, 5, 5)
    assert torch.equal(double.first(x), model.first(x))


def test_what_stands_for_an_object_is_taken() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    short = nn.Parameter(torch.zeros(2, 2))
    double = copied(model, {id(model[0].weight): short})
    assert double[0].weight is short and double[1].weight is not model[1].weight


def test_a_module_is_copied_as_it_says() -> None:
    model = nn.Sequential(Counting(), nn.ReLU())
    assert copied(model, {})[0].copies == copy.deepcopy(model)[0].copies == 1


def test_hooks_are_copied() -> None:
    model = nn.Sequential(nn.ReLU())
    seen: list[str] = []
    model[0].register_forward_hook(lambda *_: seen.append("ran"))
    copied(model, {})(torch.zeros(1))
    assert seen == ["ran"]
