"""Importance from the weights alone: no data, no torch, one parameter in memory at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from torchpruner_core.calibration.errors import NotFiniteError, UnscorableModelError
from torchpruner_core.importance.axes import prunable_axes, solved_graph
from torchpruner_core.planning.scores import Axis, Scores

Array = NDArray[np.float64]

Weights = Any
"""An ``nn.Module``, or a mapping from node names (``"self.conv1.weight"``) to arrays."""

Measure = Callable[[Array, int, str], ArrayLike]
"""``measure(weight, dim, name)`` gives one number for each slice of ``weight`` along ``dim``."""

ROWS = 1 << 22
"""How many distances are held at a time."""


def magnitude(model: Weights, graph: Any, *, p: float = 2, bias: bool = False) -> Scores:
    """Return the sum of ``|w| ** p`` over each slice: ``p=2`` is the squared L2 norm, ``p=1`` the L1 norm.

    Sums over the members of a group add up to the group's own norm, so they need no root. Biases count with
    ``bias=True`` only, since a large bias says little about what a channel carries. ``model`` is an
    ``nn.Module`` or a mapping from node names to arrays. Source: Li et al. 2017,
    https://arxiv.org/abs/1608.08710, and for groups Fang et al. 2023 (DepGraph),
    https://arxiv.org/abs/2301.12900.

    Raises ``NotFiniteError`` for weights that hold NaN or infinity, ``UnscorableModelError`` for a model that
    lacks the graph's parameters or a graph without any axis that can be shortened.
    """
    if not p > 0:
        raise UnscorableModelError(f"p is a positive number, not {p!r}", received=repr(p))

    def measure(weight: Array, dim: int, name: str) -> Array:
        return _sum(np.abs(weight) ** p, dim)

    return _scores(
        model, graph, measure, "magnitude", {"p": p, "bias": bias}, lambda n: bias or not _bias(n)
    )


def lamp(model: Weights, graph: Any) -> Scores:
    """Return each slice's squared norm over the sum of those that are not smaller.

    The score compares slices of different layers: a layer's strongest slice has 1, so none is ever emptied
    first. Source: Lee et al. 2021 (layer-adaptive magnitude), https://arxiv.org/abs/2010.07611.
    Raises as :func:`magnitude` does.
    """

    def measure(weight: Array, dim: int, name: str) -> Array:
        square = _sum(np.square(weight), dim)
        order = np.argsort(square, kind="stable")
        ranked = square[order]
        survivors = np.cumsum(ranked[::-1])[::-1]
        found = np.zeros_like(square)
        found[order] = np.divide(ranked, survivors, out=np.zeros_like(ranked), where=survivors > 0)
        return found

    return _scores(model, graph, measure, "lamp", {}, lambda name: not _bias(name))


def fpgm(model: Weights, graph: Any) -> Scores:
    """Return the sum of each slice's distances to the others: those near the geometric median are
    replaceable.

    Source: He et al. 2019, https://arxiv.org/abs/1811.00250. Only parameters of two axes and more have
    scores. Distances are held for some rows at a time, so memory grows with the width and not with its
    square. Raises as :func:`magnitude` does.
    """

    def measure(weight: Array, dim: int, name: str) -> Array:
        rows = np.moveaxis(weight, dim, 0).reshape(weight.shape[dim], -1)
        norm = np.square(rows).sum(1)
        found = np.empty(len(rows))
        step = max(1, ROWS // len(rows))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            square = norm[part, None] + norm - 2 * (rows[part] @ rows.T)
            # The difference of large numbers leaves dust where a slice meets itself or its twin.
            dust = 1e-12 * (norm[part, None] + norm)
            found[part] = np.sqrt(np.where(square > dust, square, 0)).sum(1)
        return found

    rank = {name: len(node.shape) for name, node in solved_graph(graph).nodes.items()}
    return _scores(model, graph, measure, "fpgm", {}, lambda name: rank[name] > 1)


def batchnorm(model: Weights, graph: Any) -> Scores:
    """Return ``|weight|`` of each batch norm: what it scales a channel with.

    Meant for networks trained with an L1 penalty on these weights. Source: Liu et al. 2017 (network
    slimming), https://arxiv.org/abs/1708.06519. Raises ``UnscorableModelError`` where no batch norm has
    weights, else as :func:`magnitude` does.
    """
    solved = solved_graph(graph)
    scales = {
        operator.inputs[1]
        for operator in solved.operators.values()
        if operator.type == "BatchNormalization" and len(operator.inputs) > 1
    }
    if not scales & prunable_axes(graph).keys():
        raise UnscorableModelError(
            "no batch norm of this model has a weight that can be shortened; take "
            "tp.importance.magnitude, or "
            "another that needs no batch norms"
        )

    def measure(weight: Array, dim: int, name: str) -> Array:
        return np.abs(weight)

    return _scores(model, graph, measure, "batchnorm", {}, scales.__contains__)


def random(model: Weights, graph: Any, *, seed: int = 0) -> Scores:
    """Return uniform numbers from 0 to 1: the baseline that every importance must beat.

    They depend on ``seed`` and the axis's name alone, so the same model gives the same scores anywhere.
    """
    values = {}
    for name, dims in prunable_axes(graph).items():
        for dim in dims:
            digest = hashlib.sha256(f"{seed}:{name}:{dim}".encode()).digest()
            generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
            values[name, dim] = generator.random(solved_graph(graph).nodes[name].shape[dim])
    return Scores(values, "random", {"seed": seed})


def custom(model: Weights, graph: Any, measure: Measure, *, name: str = "custom") -> Scores:
    """Return what your own ``measure(weight, dim, name)`` says of every axis that can be shortened.

    ``weight`` is a float64 array, ``dim`` the axis, ``name`` the node's; the result is one number a
    slice, higher meaning keep, or ``None`` for an axis without scores. Scores that come from elsewhere
    need no function: ``Scores({("self.fc1.weight", 0): numbers})``.

    Raises ``ScoresError`` where an answer is not one finite number a slice, else as :func:`magnitude` does.
    """
    return _scores(model, graph, measure, name, {}, lambda node: True)


def _scores(
    model: Weights,
    graph: Any,
    measure: Measure,
    name: str,
    meta: Mapping[str, Any],
    wanted: Callable[[str], bool],
) -> Scores:
    values: dict[Axis, Any] = {}
    axes = {node: dims for node, dims in prunable_axes(graph).items() if wanted(node)}
    for node, weight in _read(model, graph, axes):
        for dim in axes[node]:
            found = measure(weight, dim, node)
            if found is not None:
                values[node, dim] = found
    if not values:
        raise UnscorableModelError(f"{name} finds no parameter to judge in this model")
    return Scores(values, name, meta)


def _read(model: Weights, graph: Any, names: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
    """Yield each parameter as a float64 array, one at a time."""
    tensors = model if isinstance(model, Mapping) else _tensors(model)
    nodes = solved_graph(graph).nodes
    for name in names:
        tensor = tensors.get(name)
        if tensor is None:
            raise UnscorableModelError(
                f"the graph has a parameter {name}, and the model has none of that name: is the "
                "graph of this "
                "very model?",
                node=name,
            )
        if tuple(tensor.shape) != nodes[name].shape:
            raise UnscorableModelError(
                f"{name} has the shape {tuple(tensor.shape)} in the model and {nodes[name].shape} "
                "in the graph: "
                "after a cut, build the graph again",
                node=name,
                expected=list(nodes[name].shape),
                received=list(tensor.shape),
            )
        weight = _array(tensor, name)
        if not np.isfinite(weight).all():
            raise NotFiniteError(
                f"{name} holds NaN or infinity: the training that made it diverged, or it was never loaded",
                node=name,
            )
        yield name, weight


def _tensors(model: Any) -> dict[str, Any]:
    if not hasattr(model, "named_parameters"):
        raise UnscorableModelError(
            "the weights are an nn.Module or a mapping from node names to arrays, not "
            f"{type(model).__name__}",
            received=type(model).__name__,
        )
    from torchpruner_core.exporting.unwrapping import unwrap
    from torchpruner_core.pruning.tensors.targets import LocalModel

    return dict(LocalModel(unwrap(model)).tensors)


def _array(tensor: Any, name: str) -> Array:
    if hasattr(tensor, "detach"):
        if tensor.is_meta:
            raise UnscorableModelError(
                f"{name} is on the meta device and has no values: load the model's weights first",
                node=name,
            )
        tensor = tensor.detach().float().cpu().numpy()
    found: Array = np.asarray(tensor).astype(np.float64)
    return found


def _sum(values: Array, dim: int) -> Array:
    total: Array = values.sum(axis=tuple(axis for axis in range(values.ndim) if axis != dim))
    return total


def _bias(name: str) -> bool:
    return "bias" in name.rpartition(".")[2]
