"""What models take and give: tensors, and the containers they come in.

Inputs may be nested, and may hold numbers, flags and ``None``, which become part of the program;
only tensors (or shapes in their place) are inputs of the graph. Outputs may be dataclasses and
mappings that PyTorch's exporters do not know.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from torchpruner_core.cut_result import TensorSpec
from torchpruner_core.errors import InputSpecError

Inputs = Sequence[Any] | Mapping[str, Any]


def arranged(inputs: Any) -> Any:
    """Return inputs as arguments: a lone tensor or shape becomes a tuple of one.

    Raises ``InputSpecError`` for what is neither a tensor, a sequence of arguments nor a mapping.
    """
    if inputs is None or isinstance(inputs, Mapping):
        return inputs
    if _is_tensor_like(inputs) or isinstance(inputs, TensorSpec):
        return (inputs,)
    if isinstance(inputs, Sequence) and not isinstance(inputs, (str, bytes, bytearray)):
        return inputs
    raise InputSpecError(
        "inputs are a tensor, a tuple of arguments, or a dict of arguments by name, not "
        f"{type(inputs).__name__}",
        expected="tensor, tuple or dict",
        received=type(inputs).__name__,
    )


def tensors_of_inputs(inputs: Inputs) -> dict[str, Any] | list[Any]:
    """Return the tensors, arrays and shapes among arguments, which are the graph's inputs.

    Arguments by name stay by name, a nested one under the name the exporter gives it:
    ``{'d': {'x': t}}`` gives ``{'d_x': t}``.
    """
    if isinstance(inputs, Mapping):
        found: dict[str, Any] = {}
        for name, value in inputs.items():
            found.update(_named_leaves(str(name), value))
        return found
    return [leaf for value in inputs for leaf in _named_leaves("", value).values()]


def specs_of(inputs: Any) -> dict[str, TensorSpec] | list[TensorSpec] | None:
    """Return the shapes and dtypes of the tensors among ``inputs``, in order or by name."""
    if inputs is None:
        return None
    tensors = tensors_of_inputs(arranged(inputs))
    if isinstance(tensors, Mapping):
        return {name: _spec(name, value) for name, value in tensors.items()}
    return [_spec(getattr(value, "name", "") or "", value) for value in tensors]


def _spec(name: str, value: Any) -> TensorSpec:
    if isinstance(value, TensorSpec):
        return TensorSpec(name or value.name, value.shape, value.dtype, value.value)
    return TensorSpec(
        name, tuple(int(n) for n in value.shape), str(value.dtype).replace("torch.", "")
    )


def _is_tensor_like(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _named_leaves(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, TensorSpec) or _is_tensor_like(value):
        return {name: value}
    found: dict[str, Any] = {}
    for key, child in _children(value):
        found.update(_named_leaves(f"{name}_{key}", child))
    return found


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what a container holds, in the exporter's order; nothing for a leaf."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for each in dataclasses.fields(value):
            yield each.name, getattr(value, each.name)
    elif isinstance(value, SimpleNamespace):
        yield from vars(value).items()
    elif "torch" in sys.modules:
        from torch.utils._pytree import tree_leaves

        leaves = tree_leaves(value)  # containers that somebody registered, such as a cache
        if len(leaves) != 1 or leaves[0] is not value:
            yield from enumerate(leaves)


def flatten_outputs(result: Any) -> list[Any]:
    """Return the tensors of a model's result, in order, whatever holds them."""
    import torch
    from torch.utils._pytree import tree_leaves

    found: list[Any] = []
    for leaf in tree_leaves(result):
        if isinstance(leaf, torch.Tensor):
            found.append(leaf)
        else:
            for _, child in _children(leaf):
                found += flatten_outputs(child)
    return found


def named_outputs(result: Any) -> dict[str, Any]:
    """Return the tensors of a model's result under the names of the fields that hold them.

    A tensor alone is ``output``; those of a tuple are numbered: ``output_0``.
    """
    import torch

    found: dict[str, Any] = {}
    for path, leaf in _named_leaves("", result).items():
        if isinstance(leaf, torch.Tensor):
            name = path.removeprefix("_") or "output"
            found[f"output_{name}" if name[0].isdigit() else name] = leaf
    return found


@contextlib.contextmanager
def plain_outputs(model: Any) -> Iterator[None]:
    """Let a model return a list of tensors where it returns what exporters refuse.

    That are containers they do not know, and numbers, flags or ``None`` beside the tensors.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    def flatten(module: Any, args: Any, result: Any) -> Any:
        plain = all(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(result))
        return None if plain else flatten_outputs(result)

    handle = model.register_forward_hook(flatten)
    try:
        yield
    finally:
        handle.remove()
