"""Attributes that a forward makes when it first runs: tables, scales, caches.

They are made in the sizes of that run. What a pruned model makes is wrong once the cut is undone, so
recovery puts each back to what it was at the cut, and the next forward makes it anew.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

import torch
from torch import nn

from torchpruner_core.pruning.tensors.journal import MISSING, STORES, AttributeChange, Journal
from torchpruner_core.pruning.tensors.journal import get_attribute as get
from torchpruner_core.pruning.tensors.targets import LocalModel

Held = dict[str, dict[str, Any]]
"""What each module holds, by name: ``None``, an empty container, or something."""

_SOMETHING = object()


def held_by(model: nn.Module) -> Held:
    """Return which attributes each module of a model has, and which of them are empty."""
    return {
        f"self.{path}" if path else "self": _of(module) for path, module in model.named_modules()
    }


def made_since(before: Held, model: nn.Module) -> list[AttributeChange]:
    """Return the attributes that were absent, ``None`` or empty then, and are not now."""
    found = []
    for name, now in held_by(model).items():
        for key, value in now.items():
            old = before.get(name, {}).get(key, MISSING)
            if value is _SOMETHING and old is not _SOMETHING:
                found.append(AttributeChange(name, (key,), old, None))
    return found


def unmake(local: LocalModel, made: list[AttributeChange], journal: Journal) -> None:
    """Put attributes back to what they were before the forward made them."""
    for change in made:
        owner, name = local.modules.get(change.module), change.path[0]
        if owner is None or get(owner, name) is MISSING:
            continue
        old = change.old
        journal.set_attribute(owner, name, type(old)() if isinstance(old, (dict, list)) else old)


def empties(change: Any) -> bool:
    """Tell whether a change takes away what a forward has kept, so that it is computed anew."""
    if not isinstance(change, AttributeChange) or change.old is None:
        return False
    new = change.new
    return new is None or new is MISSING or (type(new) in (dict, list) and not new)


def emptied(name: str, module: nn.Module, known: Container[str]) -> Iterator[AttributeChange]:
    """Yield changes that take away the tensors a module keeps, other than those whose names are known."""
    plain = {key: value for key, value in vars(module).items() if key not in STORES}
    for key, value in {**plain, **module._buffers}.items():
        if isinstance(value, torch.Tensor) and f"{name}.{key}" not in known:
            yield AttributeChange(name, (key,), value, None)
            yield AttributeChange(name, (key,), value, MISSING)
        elif type(value) in (dict, list) and value:
            entries = value.values() if isinstance(value, dict) else value
            if all(isinstance(entry, torch.Tensor) for entry in entries):
                yield AttributeChange(name, (key,), value, type(value)())


def _of(module: nn.Module) -> dict[str, Any]:
    attributes = {
        k: v for k, v in vars(module).items() if k not in STORES and k[0:9] != "_forward_"
    }
    attributes.update(module._buffers)
    return {key: _kind(value) for key, value in attributes.items()}


def _kind(value: Any) -> Any:
    if value is None:
        return None
    return type(value)() if type(value) in (dict, list) and not value else _SOMETHING
