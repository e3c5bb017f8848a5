"""The tree of modules: who contains whom, with parameters and FLOPs summed upwards."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from torchpruner_core.analysis.solved_graph import ModuleInfo, NodeInfo, OperatorInfo


def with_costs(
    modules: dict[str, ModuleInfo],
    nodes: dict[str, NodeInfo],
    operators: dict[str, OperatorInfo],
) -> dict[str, ModuleInfo]:
    """Return ``modules`` with ``params`` and ``flops`` filled, everything below included.

    A parameter that appears under two names counts once a module.
    """
    params = dict.fromkeys(modules, 0)
    flops = dict.fromkeys(modules, 0)
    for node in nodes.values():
        if node.kind == "parameter":
            counted = _ancestors(node.alias_of, modules) if node.alias_of else set()
            for name in _ancestors(node.name, modules) - counted:
                params[name] += prod(node.shape)
    for operator in operators.values():
        for name in _ancestors(operator.module, modules):
            flops[name] += operator.flops
    return {
        name: replace(module, params=params[name], flops=flops[name])
        for name, module in modules.items()
    }


def _ancestors(name: str | None, modules: dict[str, ModuleInfo]) -> set[str]:
    found = set()
    while name is not None:
        if name in modules:
            found.add(name)
            name = modules[name].parent
        else:
            name = name.rpartition(".")[0] or None
    return found
