"""Integers that repeat a size for code that does not run in ``forward()``.

A block keeps its widths for ``fuse()``, ``reparameterize()``, ``extra_repr()`` or an export; its forward
never reads them, so no rehearsal shows that they are stale. What tells is the block's own layers: an
integer that equalled sizes of theirs, all of which became the same other number, follows. Where some
did and some did not, a person must say, and is told.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from torchpruner_core.cut_dict import operator_owner
from torchpruner_core.cut_result import CutResult
from torchpruner_core.errors import ReplayError, StaleStateWarning
from torchpruner_core.pruning.change_list import Plan, has_own_rule
from torchpruner_core.pruning.forward.slots import Slot, slots
from torchpruner_core.pruning.module_pruners.base import layer_change
from torchpruner_core.pruning.module_pruners.registry import module_pruner_reg
from torchpruner_core.pruning.tensors.journal import AttributeChange
from torchpruner_core.pruning.tensors.targets import own_tensors

PLAIN = 8
"""An integer whose name says nothing is taken for a size from here on; smaller ones are anything."""

SHOWN = 8
"""So many attributes are spelled out in a warning."""

_SIZE = re.compile(
    r"(^|_)(c\d?|ch|chs|g|n?f|in|inp|out|mid|hid|dims?|units|inner|size|filters)(_|\d|$)"
    r"|chan|planes|feat|width|hidden|embed|group|head|dim|chs|filter",
    re.I,
)
_NO_SIZE = re.compile(
    r"kernel|stride|pad|dilat|patch|window|imag|img|resol|depth|layer|block|class|vocab|max|min|num_conv"
    r"|steps?$|seed|index|idx|epoch|bits|axis|version|rank$|level|token|seq|position",
    re.I,
)
GROUPS = ("groups", "num_groups")
TAKES = ("in_channels", "in_features", "input_size")
GIVES = ("out_channels", "out_features")

_ROLES = (
    (re.compile(r"group|^g$", re.I), GROUPS),
    (re.compile(r"(^|_)in(p|put|_|c|ch|chs|$)|^in", re.I), TAKES),
    (re.compile(r"(^|_)out(put|_|c|ch|chs|$)|^out", re.I), GIVES),
)
"""Which attribute of a layer an attribute of that name repeats, where its name tells."""


@dataclass(frozen=True)
class Evidence:
    """A size of a layer below a module, before and after the cut; ``role`` is the layer's name for it."""

    role: str
    old: int
    new: int


@dataclass(frozen=True)
class Doubt:
    """An integer that may or may not have to follow, and what sizes it equalled became."""

    slot: Slot
    became: tuple[int, ...]

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.became))
        return f"{self.slot.module}.{'.'.join(self.slot.path)} ({self.slot.value}; beside it now {sizes})"


def follow_repeated(
    plan: Plan,
    attributes: Sequence[AttributeChange],
    harmless: Callable[[list[AttributeChange]], bool],
) -> tuple[list[AttributeChange], list[Doubt]]:
    """Return the changes of integers that repeat sizes of layers below them, and the doubtful ones.

    ``attributes`` are the changes that are decided already. ``harmless`` tells whether the rehearsed
    forward is as right with further changes as without.
    """
    evidence = _evidence(plan, attributes)
    taken = {(change.module, change.path[0]) for change in attributes}
    certain: list[AttributeChange] = []
    doubts: list[Doubt] = []
    for name, module in plan.local.modules.items():
        if has_own_rule(type(module)) or name not in evidence:
            continue
        for slot in slots(name, module):
            if len(slot.path) > 1 or slot.item is not None or (name, slot.path[0]) in taken:
                continue
            became = _became(slot, evidence[name])
            changed = became - {slot.value}
            parts = _parts(plan.cut, slot)
            if len(parts) > 1 and not changed:
                became = changed = parts
            if not changed:
                continue
            if len(became) == 1 or (len(parts) == 1 and parts == changed):
                certain.append(slot.lowered(slot.value - min(changed)))
            elif _SIZE.search(slot.path[0]):
                doubts.append(Doubt(slot, tuple(sorted(became))))
    if not certain or harmless(certain):
        return certain, doubts
    kept: list[AttributeChange] = []
    for change in certain:
        if harmless([*kept, change]):
            kept.append(change)
    return kept, doubts


def warn_of_doubts(doubts: Sequence[Doubt]) -> None:
    """Warn of integers that may be stale."""
    if doubts:
        more = f" and {len(doubts) - SHOWN} more" if len(doubts) > SHOWN else ""
        warnings.warn(
            f"{'; '.join(map(str, doubts[:SHOWN]))}{more}: as it was, since only a part of what it may "
            "repeat was cut. The forward does not mind; code that does not run in it (fuse(), "
            "reparameterize(), an export) may: set it by hand before that",
            StaleStateWarning,
            stacklevel=4,
        )


def _became(slot: Slot, evidence: list[Evidence]) -> set[int]:
    """Return what the sizes that an integer equals have become, as far as it can be one of them."""
    name = slot.path[0]
    if _NO_SIZE.search(name) or (slot.value < PLAIN and not _SIZE.search(name)):
        return set()
    same = [each for each in evidence if each.old == slot.value]
    for pattern, roles in _ROLES:
        if pattern.search(name):
            fitting = [each for each in same if each.role in roles]
            if roles == GROUPS:
                return {each.new for each in fitting}
            same = fitting or same
            break
    return {each.new for each in same}


def _parts(cut: CutResult, slot: Slot) -> set[int]:
    """Return what parts of the size of an integer become where the module itself splits tensors."""
    return {
        slot.value - amount
        for operator, change in cut.operator.items()
        if operator_owner(operator)[0] == slot.module and not _NO_SIZE.search(slot.path[0])
        for key, less in change.items()
        if key == "split" and isinstance(less, list)
        for amount in less
        if amount < slot.value
    }


def _evidence(plan: Plan, attributes: Sequence[AttributeChange]) -> dict[str, list[Evidence]]:
    """Return, for each module with a cut below it, the sizes of its layers and own tensors."""
    changes = {(change.module, change.path): change.new for change in attributes}
    shapes = {id(target.tensor): target for target in plan.targets}
    touched: set[str] = set()
    for target in plan.targets:
        for name in target.names:
            touched.update(_ancestors(name.rpartition(".")[0]))
    layers: dict[str, list[Evidence]] = {}
    for name, module in plan.local.modules.items():
        sizes = list(_sizes_of_layer(name, module, changes))
        if not sizes:
            for _, tensor in own_tensors(module):
                known = shapes.get(id(tensor))
                after = tuple(tensor.shape) if known is None else known.after
                sizes += [Evidence("", x, y) for x, y in zip(tensor.shape, after, strict=True)]
        if sizes:
            layers[name] = sizes
    return {
        name: list(_seen_from(name, plan.local.modules[name], layers))
        for name in touched
        if name in plan.local.modules
    }


def _seen_from(
    name: str, module: nn.Module, layers: dict[str, list[Evidence]]
) -> Iterator[Evidence]:
    """Yield the sizes that a module has to do with: its own, and what its children take and give."""
    yield from layers.get(name, ())
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}"
        if isinstance(child, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
            yield from _seen_from(path, child, layers)
        elif path in layers:
            yield from layers[path]
        else:
            below = [sizes for key, sizes in layers.items() if key.startswith(f"{path}.")]
            takes = [[e for e in sizes if e.role in TAKES] for sizes in below]
            gives = [[e for e in sizes if e.role in GIVES] for sizes in below]
            yield from next(filter(None, takes), [])
            yield from next(filter(None, reversed(gives)), [])
            yield from (e for sizes in below for e in sizes if e.role in GROUPS)


def _sizes_of_layer(
    name: str, module: nn.Module, changes: dict[tuple[str, tuple[str, ...]], Any]
) -> Iterator[Evidence]:
    pruner = module_pruner_reg.get(type(module))
    if pruner is None or not has_own_rule(type(module)) or not pruner.declarative:
        return
    try:
        now = pruner(name).attributes(module, layer_change(name, module, CutResult()))
    except (ReplayError, AttributeError, KeyError):
        return
    for attribute, value in now.items():
        if type(value) is int:
            new = changes.get((name, (attribute,)), value)
            if type(new) is int:
                yield Evidence(attribute, value, new)


def _ancestors(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]
