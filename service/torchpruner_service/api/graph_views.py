"""What a solved graph holds, as plain JSON values."""

from __future__ import annotations

from typing import Any

from torchpruner_core.analysis.groups import Group, slice_cost
from torchpruner_core.analysis.solved_graph import SolvedGraph


def group_view(graph: SolvedGraph, group: Group) -> dict[str, Any]:
    """One group with what its first slice costs; about as much work as one cut analysis."""
    cost = slice_cost(graph, group)
    return {
        "id": group.id,
        "width": group.width,
        "members": [{"node": node, "dim": dim} for node, dim in group.members],
        "prunable": cost.reason is None and cost.step < group.width,
        "reason": cost.reason
        or ("its slices only go all together" if cost.step >= group.width else None),
        "touches": touched_ends(graph, group),
        "step": cost.step,
        "params_per_slice": cost.params,
        "flops_per_slice": cost.flops,
    }


def touched_ends(graph: SolvedGraph, group: Group) -> list[str]:
    """The graph's inputs and outputs whose shape changes with the group, sorted."""
    kind, classes = graph.coupling.kinds
    starts, axes = graph.coupling.axes_of_class
    reached = classes[kind[group.components[0]]]
    owners = {
        graph.axis_owner[axis][0]
        for reached_class in reached
        for axis in axes[starts[reached_class] : starts[reached_class + 1]].tolist()
    }
    return sorted(owners & {*graph.inputs, *graph.outputs})


def flops_by_module(graph: SolvedGraph) -> dict[str, int]:
    return {name: module.flops for name, module in graph.modules.items() if module.flops}


def flops_by_operator(graph: SolvedGraph) -> dict[str, int]:
    return {name: operator.flops for name, operator in graph.operators.items()}
