"""What a module pruner is: how one class of module follows a cut.

Two ways to write one, for a class whose attributes repeat its tensors' sizes:

- *say* which attributes follow, in :meth:`BasePruner.attributes`: nothing is touched while it runs,
  so a cut can be refused before it starts, and undone without another line;
- *do* it, as in the original manual: override :meth:`BasePruner.set_cut` (and ``recovery_cut``,
  ``set_zero``, ``recovery_zero`` where the default is not enough). ``set_cut`` of the model puts
  everything back if one of them fails in the middle.

Either way a pruner may leave tensors alone: those that the cut names and the pruner did not shorten
are shortened after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from torchpruner_core.cut_dict import operator_owner
from torchpruner_core.errors import ModulePrunerError, ReplayError
from torchpruner_core.pruning.tensors import slices
from torchpruner_core.pruning.tensors.targets import own_tensors

Context = dict[str, Any]
"""Dotted name -> the removed slices of a tensor, or an attribute's value before."""

T = TypeVar("T")


@contextmanager
def naming_failures(pruner: type[BasePruner], method: str, name: str, left: str) -> Iterator[None]:
    """Let an error of a pruner's ``method`` name the pruner, the module and how the model is left."""
    try:
        yield
    except ReplayError:
        raise
    except Exception as error:
        raise ModulePrunerError(
            f"{pruner.__name__}.{method} failed on {name}, and the model was {left}: "
            f"{type(error).__name__}: {error}",
            module=name,
            pruner=pruner.__name__,
        ) from error


@dataclass(frozen=True)
class LayerChange:
    """What a cut does to one module, as its pruner sees it before anything is touched.

    ``before`` and ``after`` are the shapes of the module's own tensors by attribute name,
    ``removed`` the indices an axis of those that are cut, and ``operators`` the amounts to subtract
    by operator type: ``{'Conv': {'group': 1}}``.
    """

    before: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    after: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    removed: Mapping[str, list[NDArray[np.int64] | None]] = field(default_factory=dict)
    operators: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def indices(self, attribute: str, axis: int) -> NDArray[np.int64]:
        """Return the indices removed from one tensor along one axis, empty where it stays."""
        axes = self.removed.get(attribute)
        found = None if axes is None else axes[axis]
        return np.empty(0, np.int64) if found is None else found

    def subtract(self, key: str) -> int:
        """Return what the module's operators ask to subtract from the constant ``key``."""
        amounts = {int(change[key]) for change in self.operators.values() if key in change}
        if len(amounts) > 1:
            raise ModulePrunerError(
                f"the module runs more than once, and its runs ask for different changes of "
                f"'{key}': {sorted(amounts)}",
                constant=key,
            )
        return amounts.pop() if amounts else 0


def layer_change(name: str, nn_module: nn.Module, cut_dict: Mapping[str, Any]) -> LayerChange:
    """Read from a whole cut what it does to the module called ``name``."""
    before: dict[str, tuple[int, ...]] = {}
    after: dict[str, tuple[int, ...]] = {}
    removed: dict[str, list[NDArray[np.int64] | None]] = {}
    tensors = dict(own_tensors(nn_module))
    for attribute, tensor in tensors.items():
        before[attribute] = after[attribute] = tuple(tensor.shape)
        cut_dims = cut_dict["terminal"].get(f"{name}.{attribute}")
        if cut_dims is not None:
            axes = slices.read_axes(cut_dims, tensor.shape, f"{name}.{attribute}")
            removed[attribute] = axes
            after[attribute] = slices.shape_after(tensor.shape, axes)
    # A weight that is computed (weight norm, spectral norm) has the shape of what it is computed from.
    for attribute, source, shapes_of in _computed(nn_module):
        cut_dims = cut_dict["terminal"].get(f"{name}.{source}")
        before[attribute] = after[attribute] = shapes_of
        if cut_dims is not None:
            axes = slices.read_axes(cut_dims, shapes_of, f"{name}.{source}")
            removed[attribute] = axes
            after[attribute] = slices.shape_after(shapes_of, axes)
    operators: dict[str, dict[str, Any]] = {}
    for operator, change in cut_dict["operator"].items():
        owner, _ = operator_owner(operator)
        if owner == name:
            operators[operator.rpartition(".")[2]] = dict(change)
    return LayerChange(before, after, removed, operators)


def _computed(nn_module: nn.Module) -> list[tuple[str, str, tuple[int, ...]]]:
    found: list[tuple[str, str, tuple[int, ...]]] = []
    for attribute, chain in (getattr(nn_module, "parametrizations", None) or {}).items():
        for source in ("original1", "original"):
            tensor = chain._parameters.get(source)
            if tensor is not None:
                path = f"parametrizations.{attribute}.{source}"
                found.append((attribute, path, tuple(tensor.shape)))
                break
    for suffix in ("_v", "_orig"):  # the older torch.nn.utils: weight_norm, spectral_norm, prune
        for parameter, tensor in nn_module._parameters.items():
            if tensor is not None and parameter.endswith(suffix):
                attribute = parameter.removesuffix(suffix)
                if attribute not in nn_module._parameters and hasattr(nn_module, attribute):
                    found.append((attribute, parameter, tuple(tensor.shape)))
    return found


class BasePruner:
    """How one module follows a cut; ``name`` is the module's, ``'self.layer1.0.conv1'``.

    A subclass overrides :meth:`attributes`, or any of the four methods that bear the names of the
    functions they serve.
    """

    declarative: ClassVar[bool] = True
    """Whether :meth:`attributes` says everything, so that a cut can be planned without running it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        overridden = any(
            "set_cut" in base.__dict__ for base in cls.__mro__ if base is not BasePruner
        )
        cls.declarative = not overridden

    def attributes(self, nn_module: nn.Module, change: LayerChange) -> dict[str, Any]:
        """Return the new values of the attributes that repeat a size.

        Runs before anything is touched. Raise :class:`ModulePrunerError` where the module cannot
        have the shapes that the cut asks for.
        """
        return {}

    def set_cut(self, nn_module: Any, cut_dict: Any) -> tuple[Any, Context]:
        """Shorten the module's own tensors and set its attributes; return it and what was removed."""
        change = layer_change(self.name, nn_module, cut_dict)
        attributes = self.attributes(nn_module, change)
        context: Context = {}
        for attribute, tensor in own_tensors(nn_module):
            if attribute in change.removed:
                _, removed = slices.set_cut_tensor(tensor, change.removed[attribute])
                context[f"{self.name}.{attribute}"] = removed
        for attribute, value in attributes.items():
            context[f"{self.name}.{attribute}"] = getattr(nn_module, attribute)
            setattr(nn_module, attribute, value)
        return nn_module, context

    def recovery_cut(self, nn_module: Any, cut_dict: Any, context: Context) -> Any:
        """Put back what :meth:`set_cut` removed, and return the module."""
        tensors = dict(own_tensors(nn_module))
        for name, value in context.items():
            attribute = name.rpartition(".")[2]
            if attribute in tensors:
                slices.recovery_cut_tensor(tensors[attribute], cut_dict["terminal"][name], value)
            else:
                setattr(nn_module, attribute, value)
        return nn_module

    def set_zero(self, nn_module: Any, cut_dict: Any) -> tuple[Any, Context]:
        """Zero the slices of the module's own tensors; return it and the values that were there."""
        context: Context = {}
        for attribute, tensor in own_tensors(nn_module):
            name = f"{self.name}.{attribute}"
            if name in cut_dict["terminal"]:
                _, context[name] = slices.set_zero_tensor(tensor, cut_dict["terminal"][name])
        return nn_module, context

    def recovery_zero(self, nn_module: Any, cut_dict: Any, context: Context) -> Any:
        """Put back the values that :meth:`set_zero` zeroed, and return the module."""
        for attribute, tensor in own_tensors(nn_module):
            name = f"{self.name}.{attribute}"
            if name in context:
                slices.recovery_zero_tensor(tensor, cut_dict["terminal"][name], context[name])
        return nn_module


class TensorPruner(BasePruner):
    """How one tensor follows a cut; ``name`` is the tensor's, ``'self.bn.running_mean'``.

    ``None`` in the place of the tensor (a convolution without bias) and a tensor the cut does not
    name pass through, with an empty context.
    """

    def set_cut(self, nn_module: T, cut_dict: Any) -> tuple[T, Context]:
        if not isinstance(nn_module, torch.Tensor) or self.name not in cut_dict["terminal"]:
            return nn_module, {}
        tensor, removed = slices.set_cut_tensor(nn_module, cut_dict["terminal"][self.name])
        return tensor, {self.name: removed}  # type: ignore[return-value]

    def recovery_cut(self, nn_module: T, cut_dict: Any, context: Context) -> T:
        if isinstance(nn_module, torch.Tensor) and self.name in cut_dict["terminal"]:
            cut_dims = cut_dict["terminal"][self.name]
            slices.recovery_cut_tensor(nn_module, cut_dims, context.get(self.name))
        return nn_module

    def set_zero(self, nn_module: T, cut_dict: Any) -> tuple[T, Context]:
        if not isinstance(nn_module, torch.Tensor) or self.name not in cut_dict["terminal"]:
            return nn_module, {}
        tensor, removed = slices.set_zero_tensor(nn_module, cut_dict["terminal"][self.name])
        return tensor, {self.name: removed}  # type: ignore[return-value]

    def recovery_zero(self, nn_module: T, cut_dict: Any, context: Context) -> T:
        if isinstance(nn_module, torch.Tensor) and self.name in cut_dict["terminal"]:
            cut_dims = cut_dict["terminal"][self.name]
            slices.recovery_zero_tensor(nn_module, cut_dims, context.get(self.name))
        return nn_module


class ParameterPruner(TensorPruner):
    """A :class:`TensorPruner` for an ``nn.Parameter``: the same object comes back, shortened."""
