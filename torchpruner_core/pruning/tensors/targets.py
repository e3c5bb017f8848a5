"""From the names in a cut to the tensors, modules and names of a local model.

A wrapper that only forwards to one module (``DataParallel``, ``DistributedDataParallel``,
``AveragedModel``, a compiled model) is looked through. A parameter that has two names (tied
weights) is one target.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from torchpruner_core.cut_result import CutResult
from torchpruner_core.errors import CutMismatchError, UnsupportedModuleError
from torchpruner_core.pruning.tensors import slices

CallT = TypeVar("CallT", bound=Callable[..., Any])


def in_mode_of_model(function: CallT) -> CallT:
    """Let ``function(model, ...)`` make the kind of tensors that the model has.

    In ``torch.inference_mode()`` a cut would else leave tensors that can never be trained again, and
    a model that was made in that mode can be changed nowhere else.
    """

    @functools.wraps(function)
    def wrapped(model: Any, *args: Any, **kwargs: Any) -> Any:
        inference = isinstance(model, nn.Module) and any(
            tensor.is_inference() for module in model.modules() for _, tensor in own_tensors(module)
        )
        with torch.inference_mode(inference):
            return function(model, *args, **kwargs)

    return wrapped  # type: ignore[return-value]


@dataclass(eq=False)
class Target:
    """One tensor of the model that the cut shortens, with every name it has there."""

    name: str
    tensor: torch.Tensor
    axes: list[NDArray[np.int64] | None]
    names: list[str] = field(default_factory=list)

    @property
    def before(self) -> tuple[int, ...]:
        """The shape at the time the target was found."""
        return self._before

    def __post_init__(self) -> None:
        self._before = tuple(self.tensor.shape)

    @property
    def after(self) -> tuple[int, ...]:
        """The shape the cut asks for."""
        return slices.shape_after(self._before, self.axes)


def module_path(name: str) -> str:
    """Return the path below the root: ``'self.a.b'`` gives ``'a.b'``, ``'self'`` gives ``''``."""
    if name == "self":
        return ""
    return name.removeprefix("self.")


def split_name(name: str) -> tuple[str, str]:
    """Return a tensor's module name and its attribute: ``('self.conv', 'weight')``."""
    module, _, attribute = name.rpartition(".")
    return module or "self", attribute


class LocalModel:
    """The names of an unwrapped model: its modules, and every tensor they hold."""

    def __init__(self, model: nn.Module) -> None:
        self.root = model
        self.modules: dict[str, nn.Module] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self.modules[f"self.{path}" if path else "self"] = module
        self.names: dict[int, list[str]] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        for module_name, module in self.modules.items():
            for attribute, tensor in own_tensors(module):
                name = f"{module_name}.{attribute}"
                self.tensors[name] = tensor
                self.names.setdefault(id(tensor), []).append(name)

    def names_of(self, module: nn.Module) -> list[str]:
        """Return every name a module has; the first is the one it was registered under first."""
        return [name for name, other in self.modules.items() if other is module]

    def owner(self, name: str) -> nn.Module | None:
        """Return the module that holds the tensor called ``name``."""
        return self.modules.get(split_name(name)[0])

    def find(self, cut: CutResult) -> list[Target]:
        """Return one target a tensor that ``cut`` shortens.

        Raises :class:`CutMismatchError` for a name the model lacks, a rank, a shape or an index
        that does not fit, or two names of one tensor cut differently;
        :class:`UnsupportedModuleError` for a tensor that cannot be cut.
        """
        targets: dict[int, Target] = {}
        literals = set(cut.literals)
        for name, cut_dims in cut.terminal.items():
            if all(indices is None or len(indices) == 0 for indices in cut_dims):
                continue
            tensor = self.tensors.get(name)
            if tensor is None:
                if name in literals:
                    continue
                raise self.missing(name)
            expected = cut.shapes.get(name)
            if tensor.is_complex() and len(cut_dims) > tensor.dim() and not cut_dims[-1]:
                # A program has complex numbers as pairs along a last axis, which stays whole.
                cut_dims, expected = cut_dims[:-1], expected and expected[:-1]
            if expected is not None and tuple(expected) != tuple(tensor.shape):
                raise CutMismatchError(
                    f"{name} has the shape {tuple(tensor.shape)} here, and the cut was made for "
                    f"{tuple(expected)}: was it cut already, or is this another model?",
                    node=name,
                    expected=list(expected),
                    received=list(tensor.shape),
                )
            slices.refuse_unsliceable(tensor, name)
            axes = slices.read_axes(cut_dims, tensor.shape, name)
            known = targets.get(id(tensor))
            if known is None:
                targets[id(tensor)] = Target(name, tensor, axes, self.names[id(tensor)])
            elif not _same(known.axes, axes):
                raise CutMismatchError(
                    f"{name} and {known.name} are one tensor here, and the cut shortens them differently",
                    node=name,
                )
        return list(targets.values())

    def missing(self, name: str) -> Exception:
        """Return the error of a name that the model lacks."""
        module_name, attribute = split_name(name)
        owner = self.modules.get(module_name)
        if owner is None:
            return CutMismatchError(
                f"the cut names {name}, and the model has no module {module_name}: is this the model "
                "that was analysed?",
                node=name,
                module=module_name,
            )
        if attribute in (getattr(owner, "parametrizations", None) or ()):
            return UnsupportedModuleError(
                f"{name} is computed by a parametrization: analyse the parametrized model itself, or call "
                f"torch.nn.utils.parametrize.remove_parametrizations(module, {attribute!r}) first",
                node=name,
                module=module_name,
            )
        return CutMismatchError(
            f"the cut names {name}, and {module_name} ({type(owner).__name__}) holds no such tensor; "
            f"it has {[attribute for attribute, _ in own_tensors(owner)]}",
            node=name,
            module=module_name,
        )


def own_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the parameters, buffers and plain tensor attributes that a module itself holds."""
    for store in (module._parameters, module._buffers, module.__dict__):
        for attribute, value in store.items():
            if isinstance(value, torch.Tensor):
                yield attribute, value


def _same(a: list[NDArray[np.int64] | None], b: list[NDArray[np.int64] | None]) -> bool:
    return all(
        (x is None and y is None) or (x is not None and y is not None and np.array_equal(x, y))
        for x, y in zip(a, b, strict=True)
    )
