"""Changing a model so that every change can be taken back.

A :class:`Journal` remembers the objects that were there, not copies of them, so taking back is exact
and free; only a module handed to somebody else's code is copied first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import nn

from torchpruner_core.pruning.tensors.replacing import (
    put_back,
    renew_autograd,
    replace_data,
    version_of,
)
from torchpruner_core.pruning.tensors.targets import own_tensors

STORES = ("_parameters", "_buffers", "_modules")


class Missing(Enum):
    """The value of an attribute that does not exist; it survives pickling."""

    MISSING = "missing"


MISSING = Missing.MISSING


@dataclass(frozen=True)
class AttributeChange:
    """One attribute set by a cut: ``path`` leads from the module called ``module`` to it.

    ``('num_heads',)`` is the module's own, ``('config', 'num_attention_heads')`` its config's.
    """

    module: str
    path: tuple[str, ...]
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.module}.{'.'.join(self.path)}: {self.old} -> {self.new}"


def get_attribute(owner: Any, name: str) -> Any:
    """Return an attribute that the object itself holds, or :data:`MISSING`."""
    if name == "__class__":
        return type(owner)
    for store in STORES if isinstance(owner, nn.Module) else ():
        if name in owner.__dict__[store]:
            return owner.__dict__[store][name]
    if hasattr(owner, "__dict__") and name in owner.__dict__:
        return owner.__dict__[name]
    return MISSING if isinstance(owner, nn.Module) else getattr(owner, name, MISSING)


def put_attribute(owner: Any, name: str, value: Any) -> None:
    """Set an attribute as it would be in ``__init__``, or delete it."""
    if value is MISSING:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


class Journal:
    """Changes made so far, newest last; ``rollback`` takes them back."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def rollback(self) -> None:
        """Put everything back as it was when the journal began."""
        while self._undo:
            self._undo.pop()()

    def replace_data(
        self, tensor: torch.Tensor, data: torch.Tensor, grad: torch.Tensor | None
    ) -> None:
        """Give a tensor other values and another gradient."""
        self._undo.append(replace_data(tensor, data, grad))

    def overwrite(self, tensor: torch.Tensor) -> None:
        """Remember a tensor's values, which are about to be written over in place."""
        copy = tensor.detach().clone()

        def undo() -> None:
            with torch.no_grad():
                tensor.detach().copy_(copy)

        self._undo.append(undo)

    def set_attribute(self, owner: Any, name: str, value: Any) -> None:
        """Set or delete an attribute of a module or of a config."""
        old = get_attribute(owner, name)
        order = list(owner.__dict__) if hasattr(owner, "__dict__") else []

        def undo() -> None:
            put_attribute(owner, name, old)
            _reorder(owner, order)

        self._undo.append(undo)
        put_attribute(owner, name, value)

    def lend(self, module: nn.Module) -> Snapshot:
        """Copy a module and all below it before somebody else's code changes it."""
        snapshot = Snapshot(module)
        self._undo.append(snapshot.restore)
        return snapshot


def _reorder(owner: Any, order: list[str]) -> None:
    # vars() order shows in a pickle: an attribute deleted and set again goes back to its place.
    if hasattr(owner, "__dict__") and list(owner.__dict__) != order:
        values = dict(owner.__dict__)
        owner.__dict__.clear()
        owner.__dict__.update({key: values[key] for key in order if key in values})


class Snapshot:
    """Everything a module and the modules below it hold: objects, container contents and values."""

    def __init__(self, module: nn.Module) -> None:
        self.modules = list(module.modules())
        self._classes = [type(each) for each in self.modules]
        self._attributes = [dict(each.__dict__) for each in self.modules]
        self._stores = [{s: dict(each.__dict__[s]) for s in STORES} for each in self.modules]
        self._contents: dict[int, tuple[Any, Any]] = {}
        for attributes in self._attributes:
            for value in attributes.values():
                if isinstance(value, (list, dict)):
                    self._contents[id(value)] = (value, value.copy())
        self._values: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self._versions: dict[int, int] = {}
        for each in self.modules:
            for _, tensor in own_tensors(each):
                if id(tensor) not in self._values:
                    data = tensor.data
                    self._values[id(tensor)] = (tensor, data, data.clone())
                    self._versions[id(tensor)] = version_of(tensor)
        self._grads: dict[int, torch.Tensor | None] = {
            key: entry[0].grad if entry[0].is_leaf else None for key, entry in self._values.items()
        }

    def restore(self) -> None:
        """Put every object, content and value back."""
        for container, contents in self._contents.values():
            container.clear()
            container.extend(contents) if isinstance(container, list) else container.update(
                contents
            )
        for module, cls, attributes, stores in zip(
            self.modules, self._classes, self._attributes, self._stores, strict=True
        ):
            if type(module) is not cls:
                module.__class__ = cls
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for store, contents in stores.items():
                module.__dict__[store].clear()
                module.__dict__[store].update(contents)
        with torch.no_grad():
            for key, (tensor, data, copy) in self._values.items():
                data.copy_(copy)
                put_back(tensor, data, self._grads[key], self._versions[key])

    def keep_identity(self) -> None:
        """Put the old parameter objects back where new ones took their place, with the new values.

        Those that got another shape with ``tensor.data = ...`` are made fit for the next backward.
        """
        for tensor, _, copy in self._values.values():
            if tensor.shape != copy.shape:
                renew_autograd(tensor)
        for module, stores in zip(self.modules, self._stores, strict=True):
            for name, old in stores["_parameters"].items():
                new = module._parameters.get(name)
                if old is not None and new is not None and new is not old:
                    replace_data(old, new.data, new.grad)
                    module._parameters[name] = old
            for name, old in stores["_buffers"].items():
                buffer = module._buffers.get(name)
                if old is not None and buffer is not None and buffer is not old:
                    replace_data(old, buffer.data, None)
                    module._buffers[name] = old

    def original(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Return the values and gradient that a tensor had, if it was part of the module."""
        entry = self._values.get(id(tensor))
        return None if entry is None else (entry[2], self._grads[id(tensor)])

    def changes(self, names: dict[int, str]) -> list[AttributeChange]:
        """Return the attributes that are no longer as they were, tensors aside."""
        found: list[AttributeChange] = []
        for module, cls, attributes, stores in zip(
            self.modules, self._classes, self._attributes, self._stores, strict=True
        ):
            name = names[id(module)]
            if type(module) is not cls:
                found.append(AttributeChange(name, ("__class__",), cls, type(module)))
            before = {**attributes, **{k: v for s in STORES for k, v in stores[s].items()}}
            now = {
                **module.__dict__,
                **{k: v for s in STORES for k, v in module.__dict__[s].items()},
            }
            for key in [*before, *(k for k in now if k not in before)]:
                if key in STORES:
                    continue
                old, new = before.get(key, MISSING), now.get(key, MISSING)
                if isinstance(old, (list, dict)):
                    old = self._contents[id(old)][1] if id(old) in self._contents else old
                if old is not new and not _equal(old, new):
                    found.append(AttributeChange(name, (key,), old, new))
        return found


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, torch.Tensor) or isinstance(new, torch.Tensor):
        return False
    try:
        return type(old) is type(new) and bool(old == new)
    except (RuntimeError, ValueError, TypeError):
        return False
