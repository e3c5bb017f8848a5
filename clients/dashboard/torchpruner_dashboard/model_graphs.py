"""Graphs of models as the dashboard needs them, fetched once: a ready model never changes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from torchpruner_client import AsyncRemoteModel, Group
from torchpruner_core.analysis.records import ModuleInfo, NodeInfo, OperatorInfo, record_from_dict

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis that can be pruned: ``width`` slices, ``step`` of which go at once."""

    node: str
    dim: int
    width: int
    step: int
    group: int


@dataclass(frozen=True, eq=False)
class ModelOutline:
    """Modules, parameters included, and groups: enough for the model page."""

    modules: Mapping[str, ModuleInfo]
    groups: Sequence[Group]

    @cached_property
    def axes(self) -> dict[str, list[Axis]]:
        """The prunable axes by the module that holds the parameter, in the model's order."""
        found: dict[str, list[Axis]] = {}
        for group in self.groups:
            if not group.prunable:
                continue
            for node, dim in group.members:
                axis = Axis(node, dim, group.width, group.step, group.id)
                found.setdefault(self.holder(node), []).append(axis)
        order = {name: position for position, name in enumerate(self.modules)}
        for axes in found.values():
            axes.sort(key=lambda axis: (order.get(axis.node, 0), axis.dim))
        return dict(sorted(found.items(), key=lambda item: order.get(item[0], 0)))

    @cached_property
    def dearest(self) -> Axis | None:
        """The axis whose slices save most, inputs and outputs left alone where that is possible.

        Parameters and FLOPs count alike, each as a share of what a slice saves at most.
        """
        inner = [g for g in self.groups if g.prunable and not g.touches]
        groups = inner or [g for g in self.groups if g.prunable]
        if not groups:
            return None
        params = max(group.params_per_slice for group in groups) or 1
        flops = max(group.flops_per_slice for group in groups) or 1
        best = max(groups, key=lambda g: g.params_per_slice / params + g.flops_per_slice / flops)
        node, dim = best.members[0]
        return Axis(node, dim, best.width, best.step, best.id)

    def holder(self, node: str) -> str:
        """The module that holds a parameter or buffer."""
        record = self.modules.get(node)
        return (record.parent if record else None) or node.rpartition(".")[0] or "self"

    def is_tensor(self, name: str) -> bool:
        """Whether a module's name is that of a parameter or buffer."""
        parent = self.modules.get(self.modules[name].parent or "")
        return parent is not None and name in parent.parameters


@dataclass(frozen=True, eq=False)
class ModelGraph:
    """The outline, and the tensors and operators between which a cut spreads."""

    outline: ModelOutline
    tensors: Mapping[str, NodeInfo]
    operations: Mapping[str, OperatorInfo]


class GraphShelf:
    """Keeps the graphs of the models that were looked at last."""

    KEPT = 12

    def __init__(self) -> None:
        self._outlines: OrderedDict[str, ModelOutline] = OrderedDict()
        self._graphs: OrderedDict[str, ModelGraph] = OrderedDict()
        self._orders: OrderedDict[str, dict[tuple[str, int], tuple[int, ...]]] = OrderedDict()

    async def outline(self, model: AsyncRemoteModel) -> ModelOutline:
        """Modules and groups. Raises what the SDK raises."""
        held = _touch(self._outlines, model.id)
        if held is None:
            modules, groups = await asyncio.gather(model.modules(), model.groups())
            records = {name: module.record for name, module in modules.items()}
            held = ModelOutline(records, groups)
            _keep(self._outlines, model.id, held)
        return held

    async def orders(
        self, model: AsyncRemoteModel, importance: str
    ) -> dict[tuple[str, int], tuple[int, ...]]:
        """The slices of each axis, the least important first. Raises what the SDK raises."""
        key = f"{model.id} {importance}"
        held = _touch(self._orders, key)
        if held is None:
            held = await model.slice_orders(importance)
            _keep(self._orders, key, held)
        return held

    async def graph(self, model: AsyncRemoteModel) -> ModelGraph:
        """Everything. Raises what the SDK raises."""
        held = _touch(self._graphs, model.id)
        if held is None:
            outline, nodes, operators = await asyncio.gather(
                self.outline(model), model.nodes(), model.operators()
            )
            held = ModelGraph(
                outline,
                {item["name"]: record_from_dict(NodeInfo, item) for item in nodes},
                {item["name"]: record_from_dict(OperatorInfo, item) for item in operators},
            )
            _keep(self._graphs, model.id, held)
        return held


def _touch(shelf: OrderedDict[str, T], key: str) -> T | None:
    if key in shelf:
        shelf.move_to_end(key)
    return shelf.get(key)


def _keep(shelf: OrderedDict[str, T], key: str, value: T) -> None:
    shelf[key] = value
    while len(shelf) > GraphShelf.KEPT:
        shelf.popitem(last=False)
