"""Which five cuts are tried on a model: spread over its depth and over the kinds of its axes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from torchpruner_core.analysis.closure import Granularity
from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import CutRequest

COUNT = 5

KINDS = ("channel", "block", "stride", "hidden", "embedding")
"""A block is an attention head or a group of a convolution, a stride the same place in each of them."""


@dataclass(frozen=True, slots=True)
class Target:
    """A cut to try: ``index`` along ``dim`` of the parameter ``node``, and of those in ``also``.

    A recurrent module has one hidden size for all its layers, so its layers are cut together.
    """

    kind: str
    node: str
    dim: int
    index: tuple[int, ...]
    granularity: Granularity
    also: tuple[str, ...] = ()

    def requests(self) -> list[CutRequest]:
        """Return what to ask for, as one joint cut."""
        return [CutRequest(node, self.dim, self.index) for node in (self.node, *self.also)]


@dataclass(frozen=True, slots=True)
class _Axis:
    node: str
    dim: int
    size: int
    kind: str
    component: int
    also: tuple[str, ...] = ()


def choose(model: nn.Module, graph: SolvedGraph, seed: int = 0) -> list[Target]:
    """Return up to five cuts of output axes of ``model``'s layers, whether or not they can be made."""
    rng = random.Random(seed)
    by_kind: dict[str, list[_Axis]] = {}
    for axis in _axes(model, graph):
        by_kind.setdefault(axis.kind, []).append(axis)
    if "block" in by_kind:
        by_kind["stride"] = by_kind["block"]
    kinds = [kind for kind in KINDS if kind in by_kind]
    if not kinds:
        return []
    share = dict.fromkeys(kinds, 0)
    for turn in range(COUNT):
        share[kinds[turn % len(kinds)]] += 1
    found = []
    for kind in kinds:
        axes = by_kind[kind]
        taken: set[int] = set()
        for turn in range(share[kind]):
            place = int((turn + rng.random()) / share[kind] * len(axes))
            order = sorted(range(len(axes)), key=lambda k, place=place: abs(k - place))  # type: ignore[misc]
            pick = next((k for k in order if axes[k].component not in taken), None)
            if pick is not None:
                taken.add(axes[pick].component)
                found.append(_target(kind, axes[pick], rng))
    return found


def _target(kind: str, axis: _Axis, rng: random.Random) -> Target:
    if kind in ("block", "stride"):
        granularity: Granularity = "outer" if kind == "block" else "inner"
        return Target(
            kind, axis.node, axis.dim, (rng.randrange(axis.size),), granularity, axis.also
        )
    count = max(1, min(4, axis.size // 8))
    index = tuple(sorted(rng.sample(range(axis.size), count)))
    return Target(kind, axis.node, axis.dim, index, "auto", axis.also)


def _axes(model: nn.Module, graph: SolvedGraph) -> Iterator[_Axis]:
    shown = {owner for name in graph.outputs for owner in graph.classes_of(name)}
    seen: set[int] = set()
    for path, module in model.named_modules():
        prefix = f"self.{path}" if path else "self"
        layers = _output_axes(module)
        for name, dim in layers[:1] if isinstance(module, nn.RNNBase) else layers:
            node = f"{prefix}.{name}"
            info = graph.nodes.get(node)
            if info is None or len(info.shape) <= dim or info.shape[dim] < 4:
                continue
            owner = graph.classes_of(node)[dim]
            component = int(graph.coupling.components_of(owner)[0])
            if component in seen or owner in shown:
                continue  # what is taken from an output leaves nothing to compare
            seen.add(component)
            kind = _kind(graph, module, component)
            also = layers[1:] if isinstance(module, nn.RNNBase) else []
            names = tuple(f"{prefix}.{other}" for other, _ in also)
            yield _Axis(node, dim, info.shape[dim], kind, component, names)


def _output_axes(module: nn.Module) -> list[tuple[str, int]]:
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return [("weight", 1)]
    if isinstance(module, nn.Embedding):
        return [("weight", 1)]
    if isinstance(module, nn.RNNBase):
        recurrent = "weight_hr" if module.proj_size else "weight_hh"
        names = dict(module.named_parameters(recurse=False))
        return [(name, 0 if module.proj_size else 1) for name in names if recurrent in name]
    if isinstance(module, nn.RNNCellBase):
        return [("weight_hh", 1)]
    if isinstance(module, nn.MultiheadAttention):
        return [("in_proj_weight", 0)]
    found = []
    for name, parameter in module.named_parameters(recurse=False):
        if name.endswith("weight") and parameter.ndim >= 2:
            transposed = type(module).__name__ == "Conv1D"
            found.append((name, 1 if transposed else 0))
    return found


def _kind(graph: SolvedGraph, module: nn.Module, component: int) -> str:
    coupling = graph.coupling
    starts, classes = coupling.classes_of_component
    reached = classes[starts[component] : starts[component + 1]].tolist()
    wholes = {view.whole for view in coupling.views}
    if wholes.intersection(reached):
        return "block"
    if isinstance(module, nn.modules.conv._ConvNd):
        return "channel"
    axis_starts, axes = coupling.axes_of_class
    owners: list[Any] = [
        graph.axis_owner[axis]
        for c in reached
        if c + 1 < len(axis_starts)
        for axis in axes[axis_starts[c] : axis_starts[c + 1]].tolist()
    ]
    members = len({name for name, _, _, is_terminal in owners if is_terminal})
    return "embedding" if isinstance(module, nn.Embedding) or members > 6 else "hidden"
