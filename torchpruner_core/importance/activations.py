"""Importance from activations: how strongly, and how variably, each weight's input speaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from torchpruner_core.calibration.as_found import as_found
from torchpruner_core.calibration.batches import Batches, Forward, Progress, Source
from torchpruner_core.calibration.errors import UnscorableModelError
from torchpruner_core.calibration.moments import Moments, Observer, check_finite, observe
from torchpruner_core.calibration.readings import Block, Reading
from torchpruner_core.exporting.unwrapping import unwrap
from torchpruner_core.importance.axes import prunable_axes
from torchpruner_core.planning.scores import Axis, Scores
from torchpruner_core.pruning.tensors.targets import LocalModel

Array = NDArray[np.float64]


def activation(
    model: nn.Module,
    graph: Any,
    batches: Source,
    *,
    forward: Forward | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Return the sum over each slice of ``|w| x`` the root mean square of the feature that ``w`` multiplies.

    Both axes of a weight have scores: its input's features and its output's. No labels are needed.
    ``batches`` are what the model takes; where they hold labels too, ``forward=lambda model, batch:
    model(batch[0])``. ``progress(done, total)`` is told after each batch, and stops the run by returning
    ``False``. Memory: two numbers for each feature of each tensor that a weight reads, however many
    batches there are. Source: Sun et al. 2024 (Wanda), https://arxiv.org/abs/2306.11695, summed up for
    structures.

    Runs on the model's device in evaluation mode; modes, gradients, buffers and random numbers are as before.
    Raises ``BatchError``, ``NotFiniteError``, ``UnscorableModelError``, ``CalibrationCancelledError``.
    """

    def saliency(weight: Array, moments: Moments, features: slice) -> Array:
        norm = np.sqrt(moments.mean_square[features])
        found: Array = np.abs(weight) * norm.reshape(-1, *[1] * (weight.ndim - 1))
        return found

    return _scores(model, graph, batches, saliency, "activation", forward, progress, inputs=False)


def fluctuation(
    model: nn.Module,
    graph: Any,
    batches: Source,
    *,
    forward: Forward | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Return the variance of each feature times the squared norm of the weights that read it.

    A feature that hardly moves can be replaced by its mean: pair these scores with
    ``tp.recover(model, plan, batches, method="bias")``. Only the axes along which weights *read* have
    scores. Arguments, memory and errors are those of :func:`activation`. Source: An et al. 2024 (FLAP),
    https://arxiv.org/abs/2312.11983.
    """

    def saliency(weight: Array, moments: Moments, features: slice) -> Array:
        variance = moments.variance[features]
        found: Array = np.square(weight) * variance.reshape(-1, *[1] * (weight.ndim - 1))
        return found

    return _scores(model, graph, batches, saliency, "fluctuation", forward, progress, inputs=True)


def _scores(
    model: nn.Module,
    graph: Any,
    source: Source,
    saliency: Callable[[Array, Moments, slice], Array],
    name: str,
    forward: Forward | None,
    progress: Progress | None,
    *,
    inputs: bool,
) -> Scores:
    root = unwrap(model)
    axes = prunable_axes(graph)
    local = LocalModel(root)
    canonical = {
        id(local.tensors[node]): node for node in axes if node in local.tensors
    }  # a tied parameter has scores under the graph's name for it

    def start(reading: Reading) -> Moments | None:
        return Moments() if id(local.tensors[reading.weight]) in canonical else None

    observer = Observer(start)
    run = Batches(root, source, forward, progress)
    with as_found(root):
        observe(root, run, run, observer)
    values: dict[Axis, Array] = {}
    for reading, moments in observer.found.items():
        assert isinstance(moments, Moments)
        if not moments.count:
            continue
        check_finite(reading, moments.mean_square)
        parameter = local.tensors[reading.weight]
        node = canonical[id(parameter)]
        for block in reading.blocks:
            weight = block.of(parameter).float().cpu().double().numpy()
            _add(
                values,
                node,
                axes[node],
                parameter,
                block,
                saliency(weight, moments, block.features),
                inputs,
            )
    if not values:
        raise UnscorableModelError(
            f"{name} saw no weight that can be shortened read a tensor: its weights are computed "
            "(parametrized, "
            "quantised, cast) before they are used; take tp.importance.magnitude"
        )
    return Scores(values, name)


def _add(
    values: dict[Axis, Array],
    node: str,
    dims: tuple[int, ...],
    parameter: torch.Tensor,
    block: Block,
    saliency: Array,
    inputs: bool,
) -> None:
    """Add what is said of a block's elements to the slices of the parameter that they belong to."""
    for dim in range(1 if inputs else saliency.ndim):
        total = saliency.sum(axis=tuple(axis for axis in range(saliency.ndim) if axis != dim))
        for axis, index in block.coordinates(parameter, dim):
            if axis in dims:
                size = parameter.shape[axis]
                known = values.setdefault((node, axis), np.zeros(size))
                known += np.bincount(index, weights=total, minlength=size)
