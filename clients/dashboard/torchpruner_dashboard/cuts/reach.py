"""Which modules a cut reaches, and along which values: what the picture of a cut shows.

Operators through which a cut only passes (activations, pooling) are contracted; what stays is
where parameters are cut, where branches meet (residual joins, concatenations), where an axis
splits into heads or groups, and where statistics change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from torchpruner_client import CutResult
from torchpruner_core.analysis.records import OperatorInfo
from torchpruner_dashboard.model_graphs import ModelGraph

Role = Literal["source", "layer", "join", "concat", "split", "view", "norm", "end"]

JOINS = {"Add", "Sub", "Mul", "Div", "Sum", "Mean", "Max", "Min", "Pow", "Where"}


@dataclass(slots=True)
class Box:
    """One module, or one operator where branches meet or an axis splits.

    ``removed`` lists ``(parameter, dim, slices removed, slices)``.
    """

    id: str
    module: str
    type: str
    role: Role
    removed: list[tuple[str, int, int, int]] = field(default_factory=list)
    members: int = 1


@dataclass(frozen=True, slots=True)
class Reach:
    """``edges`` are pairs of box ids, in the direction in which values flow."""

    boxes: Mapping[str, Box]
    edges: frozenset[tuple[str, str]]
    merged: bool = False


def reach_of(result: CutResult, graph: ModelGraph, most: int = 90) -> Reach:
    """Return the modules that ``result`` reaches; past ``most`` boxes those of one parent are
    merged."""
    reach = _contracted(result, graph)
    while len(reach.boxes) > most:
        smaller = _merged(reach, graph)
        if len(smaller.boxes) == len(reach.boxes):
            break
        reach = smaller
    return reach


def _contracted(result: CutResult, graph: ModelGraph) -> Reach:
    cut = result.terminal.keys() | result.iner.keys()
    sources = {graph.outline.holder(request.node) for request in result.requested}
    views = {choice.operator for choice in result.choices}
    boxes: dict[str, Box] = {}
    of_operator: dict[str, str] = {}
    for operator in graph.operations.values():
        box = _box_of(operator, result, graph, cut, views)
        if box is None:
            continue
        known = boxes.setdefault(box.id, box)
        if known is not box:
            known.removed += [item for item in box.removed if item not in known.removed]
        of_operator[operator.name] = box.id
    for box in boxes.values():
        if box.module in sources and box.removed:
            box.role = "source"
    edges = _edges(result, graph, boxes, of_operator)
    return Reach(boxes, frozenset(edges))


def _box_of(
    operator: OperatorInfo,
    result: CutResult,
    graph: ModelGraph,
    cut: set[str],
    views: set[str],
) -> Box | None:
    """The box an operator belongs to, or ``None`` where the cut only passes through it."""
    touched = [name for name in operator.inputs if name in cut]
    if not touched and not any(name in cut for name in operator.outputs):
        return None
    removed = []
    for name in operator.inputs:
        if name in result.terminal and name not in result.literals:
            removed += _removed(name, result, graph)
    values = [name for name in touched if name not in result.terminal]
    if operator.type == "Concat" and values:  # a class token may be among its inputs
        return Box(operator.name, operator.module, "concatenation", "concat", removed)
    if removed:
        module = graph.outline.holder(removed[0][0])
        record = graph.outline.modules.get(module)
        role: Role = "norm" if operator.name in result.renormalises else "layer"
        return Box(module, module, record.type if record else operator.type, role, removed)
    if operator.type in JOINS and len(set(values)) > 1:
        return Box(operator.name, operator.module, f"join ({operator.type})", "join")
    if operator.type == "Split" and values:
        return Box(operator.name, operator.module, "split", "split")
    if operator.name in views:
        return Box(operator.name, operator.module, "heads or groups", "view")
    if operator.name in result.renormalises:
        return Box(operator.name, operator.module, operator.type, "norm")
    return None


def _removed(name: str, result: CutResult, graph: ModelGraph) -> list[tuple[str, int, int, int]]:
    shape = result.shapes.get(name) or graph.tensors[name].shape
    return [
        (name, dim, len(indices), shape[dim])
        for dim, indices in enumerate(result.terminal[name])
        if indices is not None and len(indices)
    ]


def _edges(
    result: CutResult, graph: ModelGraph, boxes: dict[str, Box], of_operator: dict[str, str]
) -> set[tuple[str, str]]:
    """Follow every cut value from the box that makes it, through what is contracted, to boxes."""
    arriving: dict[str, set[str]] = {}
    edges: set[tuple[str, str]] = set()
    outputs = set(result.touches_outputs)
    for name in result.touches_inputs:
        boxes[f"input {name}"] = Box(f"input {name}", name, "input", "end")
        arriving[name] = {f"input {name}"}
    for operator in graph.operations.values():
        sources: set[str] = set()
        for name in operator.inputs:
            sources |= arriving.get(name, set())
        own = of_operator.get(operator.name)
        if own is not None:
            edges |= {(source, own) for source in sources if source != own}
            sources = {own}
        for name in operator.outputs:
            if name not in result.iner and name not in outputs:
                continue
            arriving[name] = sources
            if name in outputs:
                end = f"output {name}"
                boxes[end] = Box(end, name, "output", "end")
                edges |= {(source, end) for source in sources}
    return edges


def _merged(reach: Reach, graph: ModelGraph) -> Reach:
    """Merge the boxes of the deepest level into their parents; sources and ends stay."""
    depth = max(box.module.count(".") for box in reach.boxes.values() if box.role != "end")
    names: dict[str, str] = {}
    boxes: dict[str, Box] = {}
    for key, box in reach.boxes.items():
        stays = box.role in {"source", "end"} or box.module.count(".") < max(depth, 1)
        parent = box.module.rpartition(".")[0]
        name = key if stays else parent
        if name in reach.boxes and reach.boxes[name].role == "source" and name != key:
            name = f"{parent} (rest)"
        names[key] = name
        if name not in boxes:
            record = graph.outline.modules.get(parent)
            boxes[name] = (
                box if stays else Box(name, parent, record.type if record else "", "layer", [], 0)
            )
        if boxes[name] is not box:
            boxes[name].removed += box.removed
            boxes[name].members += box.members
    edges = {(names[a], names[b]) for a, b in reach.edges}
    return Reach(boxes, frozenset((a, b) for a, b in edges if a != b), merged=True)


def removed_elements(result: CutResult, name: str) -> int:
    """How many elements of a parameter go."""
    shape = result.shapes.get(name, ())
    kept = 1
    for dim, size in enumerate(shape):
        indices = result.terminal[name][dim]
        kept *= size - (0 if indices is None else len(indices))
    return int(np.prod(shape, dtype=np.int64)) - kept
