"""The inputs that a cut shortens, and what it takes from the outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map, tree_map_with_path

from torchpruner_core.cut_result import CutResult
from torchpruner_core.exporting.structures import flatten_outputs as flatten_outputs
from torchpruner_core.pruning.tensors import slices


def cut_inputs(
    cut: CutResult, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments without the slices that the cut takes from the graph's inputs.

    Keyword arguments are matched by the inputs' names (``d_x`` for ``x`` within ``d``), positional
    ones by their order.
    """
    axes_of = {spec.name: _axes(cut, spec.name) for spec in cut.inputs}
    if not any(axes_of.values()):
        return args, kwargs
    order = iter(cut.inputs)

    def shorten(value: Any, name: str | None = None) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        spec = next(order, None) if name is None else None
        axes = axes_of.get(name if name is not None else spec.name if spec else "")
        if axes is None:
            return value
        return slices.cut_data(value, slices.read_axes(axes, value.shape, name or "an input"))[0]

    shortened = {
        key: tree_map_with_path(
            lambda path, leaf, key=key: shorten(leaf, "_".join([key, *map(_step, path)])), value
        )
        for key, value in kwargs.items()
    }
    return tree_map(shorten, args), shortened


def less_cut_outputs(cut: CutResult, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the outputs without the slices that the cut takes from them."""
    if not cut.touches_outputs or len(cut.outputs) != len(outputs):
        return outputs
    left = []
    for spec, tensor in zip(cut.outputs, outputs, strict=True):
        axes = _axes(cut, spec.name)
        if axes is not None:
            tensor, _ = slices.cut_data(tensor, slices.read_axes(axes, tensor.shape, spec.name))
        left.append(tensor)
    return left


def _step(key: Any) -> str:
    """Return the part of an input's name that a step into a container gives."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _axes(cut: CutResult, name: str) -> Any:
    return cut.iner.get(name) or cut.terminal.get(name)
