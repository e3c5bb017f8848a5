"""From scores of slices to one score a unit.

A unit takes slices of several tensors with it. Its score is the mean, sum or maximum over the slices of
each axis that has scores, then over those axes (group importance: DepGraph, Fang et al. 2023,
https://arxiv.org/abs/2301.12900), and the scores of a group may be divided by their mean, maximum or norm,
so that layers can be ranked together (Molchanov et al. 2017, https://arxiv.org/abs/1611.06440,
section 2.2, take the l2 norm).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.graph_data import GraphData
from torchpruner_core.analysis.requests import near_names
from torchpruner_core.planning.errors import ScoresError
from torchpruner_core.planning.scores import Scores
from torchpruner_core.planning.units import UnitGroup, Units

Float = NDArray[np.float64]


def check_scores(graph: GraphData, scores: Scores) -> None:
    """Raise ``ScoresError`` where scores name no axis of ``graph``, or one that cannot be shortened."""
    if not scores.values:
        raise ScoresError("the scores are empty; leave scores out to cut every group alike")
    coupling = graph.coupling
    for (node, dim), values in scores.values.items():
        if node not in graph.nodes:
            raise ScoresError(
                f"there are scores for {node!r}, and the model has no such tensor"
                f"{near_names(node, graph.nodes)}",
                node=node,
                dim=dim,
            )
        shape = graph.nodes[node].shape
        if dim >= len(shape):
            raise ScoresError(
                f"there are scores for dim {dim} of {node}, whose shape is {list(shape)}",
                node=node,
                dim=dim,
                shape=list(shape),
            )
        if len(values) != shape[dim]:
            raise ScoresError(
                f"there are {len(values)} scores for dim {dim} of {node}, which has {shape[dim]} "
                "slices; give one number a slice",
                node=node,
                dim=dim,
                expected=shape[dim],
                received=len(values),
            )
        owner = graph.classes_of(node)[dim]
        if coupling.class_frozen[owner]:
            first = int(coupling.components_of(owner)[0])
            reason = coupling.reasons[int(coupling.component_reason[first])]
            raise ScoresError(
                f"there are scores for dim {dim} of {node}, which cannot be pruned: {reason}; "
                "leave this axis out",
                node=node,
                dim=dim,
                reason=reason,
            )


def unit_scores(units: Units, scores: Scores, reduce: str) -> tuple[Float, NDArray[np.bool_]]:
    """Return the score of each unit, shape ``(units,)``, and whether there is one."""
    found: list[NDArray[np.int64]] = []
    weights: list[Float] = []
    shares: list[Float] = []
    for (node, dim), values in scores.values.items():
        unit, share = units.of_axis(node, dim)
        found.append(unit)
        weights.append(values * share if reduce == "mean" else values)
        shares.append(share)
    unit = np.concatenate(found)
    weight = np.concatenate(weights)
    axes = np.bincount(unit, weights=np.concatenate(shares), minlength=units.count)
    has = axes > 0
    if reduce == "max":
        most = np.full(units.count, -np.inf)
        np.maximum.at(most, unit, weight)
        most[~has] = 0.0
        return most, has
    total = np.zeros(units.count)
    np.add.at(total, unit, weight)
    if reduce == "mean":
        total[has] /= axes[has]
    return total, has


def normalised(scores: Float, group: UnitGroup, how: str) -> Float:
    """Return the scores of one group's units, shape ``(units of the group,)``.

    Divided by a measure of the group, they count by slices: a head of 64 features weighs as much as 64
    neurons do, since it saves about as much.
    """
    values = scores[group.units]
    if how == "none":
        return values
    size = np.abs(values)
    by = float(
        {"cost": size.mean(), "mean": size.mean(), "max": size.max(), "sum": size.sum()}[how]
        if how != "l2"
        else np.linalg.norm(size)
    )
    result: Float = group.step * (values / by if by > 0 else values)
    return result
