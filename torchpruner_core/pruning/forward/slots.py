"""The whole numbers that a module holds: where an attribute can carry a constant of its forward.

It is assumed that numbers stand in the module itself, in a tuple, list or dict of it, or in a config
object that hangs on it; what lies deeper, or behind a property, is not seen. Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from torchpruner_core.pruning.tensors.journal import AttributeChange

_SKIPPED = {"training", "dump_patches", "call_super_init"}


@dataclass(frozen=True)
class Slot:
    """One integer that a module (or its config) holds; ``item`` is its place in a tuple or dict."""

    module: str
    path: tuple[str, ...]
    item: Any
    value: int
    container: Any

    def lowered(self, amount: int) -> AttributeChange:
        """Return the change that takes ``amount`` off."""
        new = self.value - amount
        if self.item is None:
            return AttributeChange(self.module, self.path, self.value, new)
        container: Any
        if isinstance(self.container, dict):
            container = {**self.container, self.item: new}
        else:
            entries = list(self.container)
            entries[self.item] = new
            container = type(self.container)(entries)
        return AttributeChange(self.module, self.path, self.container, container)


def slots(name: str, module: nn.Module) -> Iterator[Slot]:
    """Yield the integers that a module holds itself, in tuples, lists, dicts and config objects."""
    for key, value in module.__dict__.items():
        if key in _SKIPPED or key.startswith(("_forward", "_backward")):
            continue
        yield from _slots_of(name, (key,), value)
        if _is_config(value):
            for inner, entry in vars(value).items():
                yield from _slots_of(name, (key, inner), entry)


def _slots_of(name: str, path: tuple[str, ...], value: Any) -> Iterator[Slot]:
    if type(value) is int and value > 1:
        yield Slot(name, path, None, value, None)
    elif type(value) in (tuple, list):
        for i, entry in enumerate(value):
            if type(entry) is int and entry > 1:
                yield Slot(name, path, i, entry, value)
    elif type(value) is dict:
        for key, entry in value.items():
            if type(entry) is int and entry > 1:
                yield Slot(name, path, key, entry, value)


def _is_config(value: Any) -> bool:
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, (nn.Module, type))
        and not callable(value)
        and type(value).__module__ != "builtins"
        and not type(value).__module__.startswith("torch.")
    )
