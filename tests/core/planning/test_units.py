"""Units are whole: what the planner takes for one is what the engine removes for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.core.planning.nets import (
    IMAGE,
    TOKENS,
    Chunked,
    Grouped,
    GroupedQuery,
    Residual,
    graph_of,
)
from torchpruner_core.planning.units import find_units


class Shuffled(nn.Module):
    """A channel shuffle between two convolutions: an axis split in both orders."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 1)
        self.b = nn.Conv2d(12, 4, 1)

    def forward(self, x):
        x = self.a(x)
        n, _, h, w = x.shape
        return self.b(x.view(n, 2, -1, h, w).transpose(1, 2).reshape(n, -1, h, w))


class NormalisedInGroups(nn.Module):
    """A grouped convolution of four channels a group under a norm of eight."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 32, 1)
        self.b = nn.Conv2d(32, 32, 1, groups=8)
        self.norm = nn.GroupNorm(4, 32)
        self.c = nn.Conv2d(32, 4, 1)

    def forward(self, x):
        return self.c(self.norm(self.b(self.a(x))))


NETWORKS = {
    "residual": (Residual(), IMAGE),
    "grouped-query": (GroupedQuery(), TOKENS),
    "grouped": (Grouped(), IMAGE),
    "chunked": (Chunked(), IMAGE),
    "shuffled": (Shuffled(), (torch.zeros(1, 3, 4, 4),)),
    "group norm": (NormalisedInGroups(), (torch.zeros(1, 3, 4, 4),)),
}


@pytest.mark.parametrize("inner", [False, True], ids=["outer", "inner"])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_engine_removes_for_a_unit_exactly_the_unit(name, inner):
    graph = graph_of(*NETWORKS[name]).solved
    units = find_units(graph, lambda view: inner)
    coupling = graph.coupling
    tried = 0
    for group in units.groups:
        if group.reason is not None or len(group.units) < 2:
            continue
        for unit in (group.units[0], group.units[-1]):
            components = np.unique(coupling.component[units.of_slice == unit])
            removal = graph.closure.close(components.astype(np.int32), "strict")
            assert set(np.flatnonzero(removal.removed)) == set(components.tolist())
            for owner, slices in zip(group.classes, group.slices, strict=True):
                assert len(graph.closure.indices(removal, owner)) == slices
            tried += 1
    assert tried


def test_a_channel_shuffle_goes_by_its_longer_factor():
    units = find_units(graph_of(*NETWORKS["shuffled"]).solved, lambda view: False)

    group = next(g for g in units.groups if ("self.a.weight", 0) in g.members)

    assert group.reason is None and (len(group.units), group.step) == (6, 2)


def test_a_norm_and_a_convolution_of_other_groups_go_by_both():
    units = find_units(graph_of(*NETWORKS["group norm"]).solved, lambda view: False)

    group = next(g for g in units.groups if ("self.norm.weight", 0) in g.members)

    assert (len(group.units), group.step) == (4, 8)


def test_shares_of_slices_add_up_to_one_a_class_and_unit():
    units = find_units(graph_of(*NETWORKS["grouped-query"]).solved, lambda view: False)
    unit, share = units.of_axis("self.q.weight", 0)

    assert len(np.unique(unit)) == 2
    assert np.bincount(unit, weights=share)[np.unique(unit)] == pytest.approx([1, 1])
