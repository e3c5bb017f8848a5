"""The tree of modules: who contains whom, with parameters and FLOPs summed upwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from math import prod
from typing import Any

from torchpruner_core.analysis.records import ModuleInfo, NodeInfo, OperatorInfo


class DeferredModules(Mapping[str, ModuleInfo]):
    """Modules that are made when somebody first asks about one: most questions need none."""

    def __init__(self, make: Callable[[], dict[str, ModuleInfo]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> dict[str, ModuleInfo]:
        return self._make()

    def __getitem__(self, name: str) -> ModuleInfo:
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def __reduce__(self) -> Any:
        return dict, (self._made,)


def with_costs(
    modules: Mapping[str, ModuleInfo],
    nodes: dict[str, NodeInfo],
    operators: dict[str, OperatorInfo],
) -> dict[str, ModuleInfo]:
    """Return ``modules`` with ``params`` and ``flops`` filled, everything below included.

    A parameter that appears under two names counts once a module.
    """
    params = dict.fromkeys(modules, 0)
    flops = dict.fromkeys(modules, 0)
    above: dict[str | None, tuple[str, ...]] = {}
    for node in nodes.values():
        if node.kind == "parameter":
            counted = _and_above(node.alias_of, modules, above) if node.alias_of else ()
            for name in _and_above(node.name, modules, above):
                if name not in counted:
                    params[name] += prod(node.shape)
    for operator in operators.values():
        if operator.flops:
            for name in _and_above(operator.module, modules, above):
                flops[name] += operator.flops
    return {
        name: ModuleInfo(
            name, m.type, m.parent, m.children, m.parameters, m.operators, params[name], flops[name]
        )
        for name, m in modules.items()
    }


def _and_above(
    name: str | None,
    modules: Mapping[str, ModuleInfo],
    known: dict[str | None, tuple[str, ...]],
) -> tuple[str, ...]:
    """Return the modules that contain ``name``, itself included; ``known`` remembers them."""
    found: list[str] = []
    passed: list[str] = []
    while name is not None and name not in known:
        passed.append(name)
        name = modules[name].parent if name in modules else (name.rpartition(".")[0] or None)
    found.extend(known.get(name, ()))
    for below in reversed(passed):
        if below in modules:
            found.insert(0, below)
        known[below] = tuple(found)
    return tuple(found)
