"""Letting a model's config describe its pruned sizes, so that it can be saved and loaded again.

A Hugging Face model is rebuilt from ``model.config``. Where every layer was cut alike, some config
says exactly the sizes that are left; it is found by building the model from candidates on the
``meta`` device and comparing the shapes of its state. Where no config fits (one layer has fewer heads
than the others), the config stays, and the pruned model is saved with ``torch.save`` instead.
"""

from __future__ import annotations

import copy
import itertools
import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from torchpruner_core.pruning.tensors.journal import AttributeChange

SECONDS = 10.0
"""Time to look for a config at most; building a large model on ``meta`` takes up to a second."""

CANDIDATES = 24
CACHED = 8
TOGETHER = 4
"""Entries of a config that may change at once: heads, key/value heads, two widths."""

Shapes = dict[str, tuple[int, ...]]
Slot = tuple[tuple[str, ...], Any, int]
"""A path from the model, the place in a list or ``None``, and the integer there."""


def follow_config(
    root: nn.Module,
    after: Shapes,
    accept: Callable[[nn.Module, nn.Module, list[AttributeChange]], list[AttributeChange] | None],
) -> list[AttributeChange]:
    """Return the config changes under which ``root``'s class builds the pruned model.

    Equal shapes are not enough: half the heads and heads of half the size have the same matrices. So
    ``accept`` is shown the model that the present config builds, the one that the changed config
    builds, and the changes; it returns all the changes to make, or ``None`` to look further.

    Empty where the model has no such config, where it fits already, and where none fits.
    """
    config = getattr(root, "config", None)
    if not hasattr(config, "to_dict") or not hasattr(root, "save_pretrained"):
        return []
    deadline = time.monotonic() + SECONDS
    built = _present_shapes(root, config)
    if built is None:
        return []
    wrong = _mismatches(built, after)
    if not wrong or _layers_differ(built, after):
        return []
    base = _build(root, config, {})
    if base is None:
        return []
    useful: list[tuple[Slot, int]] = []
    for candidate in _candidates(config, built, after, wrong):
        single = _build(root, config, dict([candidate]))
        shapes = None if single is None else state_shapes(single)
        # One that does not go alone may go with others; one that changes no shape explains nothing.
        if shapes is None or (shapes != built and shapes.keys() == built.keys()):
            useful.append(candidate)
    for count in range(1, min(len(useful), TOGETHER) + 1):
        for combination in itertools.combinations(useful, count):
            values = dict(combination)
            if len(values) < count:
                continue
            if time.monotonic() > deadline:
                return []
            model = _build(root, config, values)
            if model is None or _mismatches(state_shapes(model), after):
                continue
            changes = accept(base, model, _as_changes(root, values))
            if changes is not None:
                return changes
    return []


def warn_of_stale_config(root: nn.Module) -> None:
    """Warn where a model's config builds other shapes than the model has: nothing loads it then."""
    config: Any = getattr(root, "config", None)
    if not hasattr(config, "to_dict") or not hasattr(root, "save_pretrained"):
        return
    built = _present_shapes(root, config)
    if built is not None and _mismatches(built, state_shapes(root)):
        warnings.warn(
            f"no {type(config).__name__} describes this {type(root).__name__} after the cut, so "
            "from_pretrained cannot load what save_pretrained writes; save the cut beside the weights "
            "(result.to_json() and model.state_dict()), and load both into a fresh model with "
            "torchpruner_core.load_pruned(model, result, state_dict)",
            stacklevel=4,
        )


_shapes_of: dict[tuple[type, str], Shapes | None] = {}
"""What the last few configs build; building a large model on ``meta`` takes a second."""


def _present_shapes(root: nn.Module, config: Any) -> Shapes | None:
    key = (type(root), str(config.to_dict()))
    if key not in _shapes_of:
        model = _build(root, config, {})
        while len(_shapes_of) >= CACHED:
            _shapes_of.pop(next(iter(_shapes_of)))
        _shapes_of[key] = None if model is None else state_shapes(model)
    return _shapes_of[key]


def _layers_differ(built: Shapes, after: Shapes) -> bool:
    """Tell whether layers that a config builds alike have different shapes after the cut."""
    alike: dict[tuple[str, tuple[int, ...]], tuple[int, ...]] = {}
    for name, shape in after.items():
        key = (re.sub(r"\d+", "#", name), built.get(name, ()))
        if alike.setdefault(key, shape) != shape:
            return True
    return False


def adopted(base: nn.Module, built: nn.Module, pruned: nn.Module) -> list[AttributeChange] | None:
    """Return the attributes that ``pruned`` must take over to be what ``built`` is.

    Those are integers that the cut left as the old config said, since the forward does not use
    them. ``None`` where the two differ in a number that is computed with (an attention scale), or
    where the cut changed an attribute to something else than the config says.
    """
    changes = []
    others = dict(built.named_modules())
    originals = dict(base.named_modules())
    for path, module in pruned.named_modules():
        if path not in others or path not in originals:
            return None
        for name, value in module.__dict__.items():
            if name.startswith("_") or type(value) not in (int, float, tuple):
                continue
            new, old = others[path].__dict__.get(name), originals[path].__dict__.get(name)
            if new == value:
                continue
            if type(value) is float or old != value or type(new) is not type(value):
                return None
            full = f"self.{path}" if path else "self"
            changes.append(AttributeChange(full, (name,), value, new))
    return changes


def _build(root: nn.Module, config: Any, values: dict[Slot, int]) -> nn.Module | None:
    config = copy.deepcopy(config)
    for (path, item, _), value in values.items():
        owner = config
        for step in path[1:-1]:
            owner = getattr(owner, step)
        if item is None:
            setattr(owner, path[-1], value)
        else:
            entries = list(getattr(owner, path[-1]))
            entries[item] = value
            setattr(owner, path[-1], entries)
    try:
        # Through its dict, as a saved config comes back: that also checks that its sizes go together.
        config = type(config).from_dict(config.to_dict())
        with torch.device("meta"):
            model: nn.Module = type(root)(config)
            return model
    except Exception:
        return None  # sizes that do not go together; another candidate may


def state_shapes(model: nn.Module) -> Shapes:
    """Return the shape of everything in a model's ``state_dict``."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _mismatches(built: Shapes, after: Shapes) -> set[str]:
    return {name for name in after if built.get(name) != after[name]} | (
        built.keys() - after.keys()
    )


def _candidates(
    config: Any, built: Shapes, after: Shapes, wrong: set[str]
) -> list[tuple[Slot, int]]:
    became: dict[tuple[int, int], int] = {}
    for name in wrong:
        for x, y in zip(built.get(name, ()), after.get(name, ()), strict=False):
            if x != y:
                became[(x, y)] = became.get((x, y), 0) + 1
    found: dict[tuple[Slot, int], int] = {}
    for slot in _slots(("config",), config):
        for (x, y), count in became.items():
            if slot[2] == x:
                found[(slot, y)] = max(found.get((slot, y), 0), 2 * count)
            elif slot[2] * y % x == 0 and slot[2] * y // x != slot[2]:
                value = slot[2] * y // x
                found[(slot, value)] = max(found.get((slot, value), 0), count)
    ranked = sorted(found, key=lambda entry: -found[entry])
    return ranked[:CANDIDATES]


def _slots(path: tuple[str, ...], config: Any) -> Iterator[Slot]:
    for key, value in vars(config).items():
        if key.startswith("_"):
            continue
        if type(value) is int and value > 1:
            yield (*path, key), None, value
        elif type(value) in (list, tuple):
            for i, entry in enumerate(value):
                if type(entry) is int and entry > 1:
                    yield (*path, key), i, entry
        elif hasattr(value, "to_dict"):
            yield from _slots((*path, key), value)


def _as_changes(root: nn.Module, chosen: dict[Slot, int]) -> list[AttributeChange]:
    values: dict[tuple[str, ...], tuple[Any, Any]] = {}
    for (path, item, old), new in chosen.items():
        if item is None:
            values[path] = (old, new)
            continue
        owner: Any = root
        for step in path:
            owner = getattr(owner, step)
        before, now = values.get(path, (owner, owner))
        entries = list(now)
        entries[item] = new
        values[path] = (before, type(owner)(entries))
    return [AttributeChange("self", path, old, new) for path, (old, new) in values.items()]
