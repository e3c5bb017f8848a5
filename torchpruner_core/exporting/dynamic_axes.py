"""Axes that stay symbolic in an exported program, such as the batch and the sequence.

``torch.export`` traces at the example's sizes and says which axes hold for others; its symbols get the
names that the caller chose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

from torchpruner_core.errors import ExportError, InputSpecError
from torchpruner_core.exporting.structures import tensors_of_inputs

Dynamic = Mapping[str | int, Mapping[int, str] | Sequence[int]]
"""Input name or position -> the names of its symbolic axes, or the axes alone."""

NO_DYNAMIC = (
    "dynamic axes are those of an nn.Module; a program or a file already says which sizes are open"
)

SMALLEST = 2
"""``torch.export`` takes sizes 0 and 1 for fixed: such an example is traced at this size."""


@dataclass(frozen=True, slots=True)
class OpenAxis:
    """One symbolic axis of an input, and its name in the program."""

    key: str | int
    axis: int
    name: str


def open_axes(dynamic: Dynamic, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[OpenAxis]:
    """Return the axes that ``dynamic`` marks; raises ``InputSpecError`` for what is not there."""
    if not isinstance(dynamic, Mapping):
        raise InputSpecError(
            "dynamic maps an input's name or position to its symbolic axes, such as "
            f"{{'x': {{0: 'batch'}}}}; it is not {type(dynamic).__name__}"
        )
    return [
        found
        for key, axes in dynamic.items()
        for found in _axes_of(key, axes, _tensor_at(key, args, kwargs))
    ]


def _leaves(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str | int, Any]:
    """Return the tensors among the arguments, by position or by name."""
    return {**dict(enumerate(tensors_of_inputs(args))), **dict(tensors_of_inputs(kwargs))}


def _tensor_at(key: str | int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    leaves = _leaves(args, kwargs)
    if key in leaves:
        return leaves[key]
    known = ", ".join(map(repr, leaves))
    raise InputSpecError(
        f"dynamic names the input {key!r}, and the tensors given are {known}",
        input=key,
        expected=list(leaves),
    )


def _axes_of(key: str | int, axes: Any, tensor: Any) -> Iterator[OpenAxis]:
    prefix = key if isinstance(key, str) else f"input_{key}"
    if isinstance(axes, str) or not isinstance(axes, Mapping | Sequence):
        raise InputSpecError(
            f"the symbolic axes of input {key!r} are {{axis: name}} or a list of axes, not {axes!r:.80}",
            input=key,
        )
    named = axes if isinstance(axes, Mapping) else dict.fromkeys(axes)
    for given, name in named.items():
        try:
            axis = index(given)
        except TypeError:
            axis = tensor.ndim
        if not -tensor.ndim <= axis < tensor.ndim:
            raise InputSpecError(
                f"input {key!r} has the shape {list(tensor.shape)}, and no axis {given!r}",
                input=key,
                axis=given,
                expected=list(range(tensor.ndim)),
            )
        axis %= tensor.ndim
        name = f"{prefix}_{axis}" if name is None else name
        if not isinstance(name, str) or not name.isidentifier():
            raise InputSpecError(
                f"axis {axis} of input {key!r} has the name {name!r}; a name is an identifier such as "
                "'batch'",
                input=key,
                axis=axis,
            )
        yield OpenAxis(key, axis, name)


def traced_at(
    axes: Sequence[OpenAxis], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Return arguments to trace with, and what ``torch.export`` wants to know of their axes."""
    import torch
    from torch.utils._pytree import tree_map

    def own(value: Any) -> Any:
        return value.view_as(value) if isinstance(value, torch.Tensor) else value

    # A tensor may be given twice, and have other axes marked each time.
    args, kwargs = tree_map(own, args), tree_map(own, kwargs)
    leaves = _leaves(args, kwargs)
    by_tensor: dict[int, set[int]] = {}
    for each in axes:
        by_tensor.setdefault(id(leaves[each.key]), set()).add(each.axis)
    shapes = torch.export.ShapesCollection()

    def larger(value: Any) -> Any:
        if id(value) not in by_tensor:
            return value
        marked = by_tensor[id(value)]
        for axis in marked:
            if value.shape[axis] < SMALLEST:
                size = list(value.shape)
                size[axis] = SMALLEST
                value = value.expand(size).clone() if value.shape[axis] else value.new_zeros(size)
        shapes[value] = dict.fromkeys(marked, torch.export.Dim.AUTO)
        return value

    return tree_map(larger, args), tree_map(larger, kwargs), shapes


def symbols_of(exported: Any, axes: Sequence[OpenAxis]) -> dict[str, str]:
    """Return the program's symbols and their names; the first name counts where axes must be equal.

    Raises ``ExportError`` for an axis that the model fixes.
    """
    from torch.export.graph_signature import InputKind, TensorArgument

    values = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    specs = exported.graph_signature.input_specs
    users = [spec.arg for spec in specs if spec.kind == InputKind.USER_INPUT]
    tensors = [values[arg.name] for arg in users if isinstance(arg, TensorArgument)]
    args, kwargs = exported.example_inputs
    places: dict[str | int, int] = {key: k for k, key in enumerate(_leaves(args, kwargs))}
    found: dict[str, str] = {}
    for each in axes:
        size = tensors[places[each.key]].shape[each.axis]
        if isinstance(size, int) or not size.node.expr.is_symbol:
            raise ExportError(
                f"axis {each.axis} of input {each.key!r} cannot stay symbolic ({each.name!r}): the "
                f"model's code fixes it at {size}. Leave it out of dynamic, or compute what "
                "depends on it from the tensor's shape in forward()",
                input=each.key,
                axis=each.axis,
                size=str(size),
            )
        found.setdefault(str(size.node.expr), each.name)
    return found


def rename_symbols(model: Any, names: Mapping[str, str]) -> None:
    """Write the chosen names into every shape of an onnx_ir model, in place."""
    import onnx_ir as ir

    outputs = (value for node in model.graph.all_nodes() for value in node.outputs)
    for value in {*model.graph.inputs, *model.graph.outputs, *outputs}:
        if value.shape is None:
            continue
        value.shape = ir.Shape(
            [
                dim
                if isinstance(dim, int) or dim.value is None
                else re.sub(r"\w+", lambda m: names.get(m[0], m[0]), dim.value)
                for dim in value.shape
            ]
        )
