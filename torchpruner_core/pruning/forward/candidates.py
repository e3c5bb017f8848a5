"""What may be tried where a rehearsal fails: attributes to lower, calls to correct.

A candidate need not be right: :mod:`.literals` rehearses each, and values decide. So what matters here is
that the right one is among them, and early. It is assumed that a size falls by an amount that the cut removes
somewhere, that its carrier is near the call that fails, and that modules of one class which the cut treats
alike are written alike. Nothing is run and nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from torchpruner_core.cut_dict import operator_owner
from torchpruner_core.pruning.forward.corrections import SIZES, SPLITTING, Correction, kind_of
from torchpruner_core.pruning.forward.rehearsal import Outcome, Stage, split_sizes
from torchpruner_core.pruning.forward.slots import slots
from torchpruner_core.pruning.forward.trace import Call
from torchpruner_core.pruning.module_pruners.registry import module_pruner_reg
from torchpruner_core.pruning.tensors.journal import AttributeChange
from torchpruner_core.pruning.tensors.positions import WHOLE_NUMBERS

Change = AttributeChange | Correction


class Candidates:
    """The changes that might let the forward of ``stage`` follow its cut, the likeliest first."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.modules = stage.plan.local.modules
        self.sizes = _sizes_by_module(stage)
        self.amounts = _amounts_by_module(stage)

    def listed(self) -> Iterator[Change]:
        """Yield new contents of attributes that list the positions which the program holds."""
        cut = self.stage.cut
        for name, renumbering in cut.renumbers.items():
            if renumbering.values is None or name in self.stage.plan.local.tensors:
                continue
            entries = np.array(renumbering.values)
            for axis, gone in enumerate(self.stage.plan.literals.get(name, ())):
                if gone is not None:
                    entries = np.delete(entries.reshape(cut.shapes[name]), gone, axis=axis)
            new = renumbering.apply(entries).ravel().tolist()
            for path, module in self.modules.items():
                for key, value in module.__dict__.items():
                    if type(value) in (list, tuple) and list(value) == list(renumbering.values):
                        yield AttributeChange(path, (key,), value, type(value)(new))
                    elif _holds(value, renumbering.values):
                        shape = [-1 if size != 1 else 1 for size in value.shape]
                        other = torch.tensor(new, dtype=value.dtype, device=value.device)
                        yield AttributeChange(path, (key,), value, other.reshape(shape))

    def place_after(self, old: Call, call: Call) -> Iterator[Correction]:
        """Yield the correction of a place that does not mean the slices it meant before the cut."""
        if old.place is None or call.place is None or not _is_same(old, call):
            return
        place = old.place
        for axis, (before, now) in enumerate(zip(place.shape, call.place.shape, strict=False)):
            if before == now:
                continue
            removed = self.stage.allowed.removed(place.shape, axis, before - now)
            wanted = None if removed is None else place.after(axis, removed)
            if wanted is None:
                return
            place = replace(place, value=wanted)
        if place.value != call.place.value:
            where = (call.module, call.function, call.nth, call.place.argument)
            yield Correction(*where, call.place.value, place.value)

    def kept_numbers(self, old: Call, call: Call) -> Iterator[Correction]:
        """Yield the correction under which a number read off a size stays what it was.

        The masked network and the pruned ONNX model compute with that number.
        """
        if kind_of(call.function) != kind_of(old.function):
            return
        place = (call.module, call.function, call.nth)
        if call.function == "scaled_dot_product_attention" and old.scalars != call.scalars:
            yield Correction(*place, ("kwargs", "scale"), None, old.scalars[0])
        for path, value in call.numbers:
            for other, before in old.numbers:
                if path == other and value != before and path[0] != "values":
                    yield Correction(*place, path, value, before)

    def corrections(self, outcome: Outcome) -> Iterator[Correction]:
        """Yield ways to correct the call at which a rehearsal fails, or one that led there."""
        if outcome.failing is not None and outcome.call is not None:
            yield from self._corrections_of(outcome.call, outcome.failing)
        for old, call in outcome.suspects:
            yield from self._corrections_of(old, call)

    def _corrections_of(self, old: Call, call: Call) -> Iterator[Correction]:
        if kind_of(call.function) != kind_of(old.function):
            return
        place = (call.module, call.function, call.nth)
        if old.scalars != call.scalars:
            yield from self.kept_numbers(old, call)
            return
        yield from self.place_after(old, call)
        if call.function in SPLITTING:
            told = list(split_sizes(self.stage.cut, old))
            for sizes in told or self.stage.allowed.splits(old, call):
                yield Correction(*place, SIZES, None, sizes, guessed=not told)
        # A number computed from a width that shrank (``width // heads``), where the size stays.
        before = dict(old.numbers)
        for path, value in call.numbers:
            if path in before and before[path] != value and type(value) is int:
                yield Correction(*place, path, value, before[path])
        changes = self._told(old)
        for path, value in call.numbers:
            if type(value) is not int:
                continue
            amounts = [x - y for x, y in changes if x == value]
            for amount in amounts if changes else self.amounts["self"]:
                if value - amount >= 1:
                    yield Correction(*place, path, value, value - amount)

    def _told(self, call: Call | None) -> list[tuple[int, int]]:
        """Return how sizes in a call's shapes change, where the cut carries its shapes."""
        sizes = {
            (x, y): None
            for shape in (call.shapes if call else ())
            for after in self.stage.allowed.becomes(shape)
            for x, y in zip(shape, after, strict=True)
            if x != y
        }
        return list(sizes)

    def of_attributes(self, outcome: Outcome) -> Iterator[list[Change]]:
        """Yield changes of attributes that might mend a failure, the likeliest tier first.

        Numbers that the failing call's shape says must change; those of the failing module that occur
        in that call; its others; those around it.
        """
        near = set(outcome.call.integers) if outcome.call else set()
        for shape in outcome.call.shapes if outcome.call else ():
            near.update(shape)
        told = self._told(outcome.call)
        exact: list[Change] = []
        likely: list[Change] = []
        own: list[Change] = []
        around: list[Change] = []
        for name in self.around(outcome.module):
            amounts = self.amounts.get(name) or self.amounts["self"]
            for slot in slots(name, self.modules[name]):
                if slot.value not in self.sizes.get(name, self.sizes["self"]):
                    continue
                exact.extend(slot.lowered(x - y) for x, y in told if x == slot.value)
                tier = around
                if name == outcome.module and len(slot.path) == 1:
                    tier = likely if slot.value in near else own
                tier.extend(slot.lowered(a) for a in amounts if slot.value - a >= 1)
        yield from (exact, likely, own, around)

    def around(self, name: str) -> list[str]:
        """Return a module, its ancestors, its children and its siblings, in that order."""
        names = [name]
        parent = name
        while parent != "self":
            parent = parent.rpartition(".")[0]
            names.append(parent)
        above = name.rpartition(".")[0]
        depth = name.count(".")
        for other in self.modules:
            child = other.startswith(f"{name}.") and other.count(".") == depth + 1
            sibling = above and other.startswith(f"{above}.") and other.count(".") == depth
            if child or sibling:
                names.append(other)
        return [
            n for n in dict.fromkeys(names) if n in self.modules and not declares(self.modules[n])
        ]

    def alike(self, change: Change, changes: Sequence[Change]) -> list[Change]:
        """Return the same change for modules of the same class that the cut treats alike."""
        model = self.modules[change.module]
        mine = self._signature(change.module)
        found: list[Change] = []
        if isinstance(change, Correction):
            return [
                replace(change, module=name)
                for name, module in self.modules.items()
                if type(module) is type(model)
                and name != change.module
                and self._signature(name) == mine
            ]
        taken = {(c.module, c.path) for c in changes if isinstance(c, AttributeChange)}
        for name, module in self.modules.items():
            if type(module) is not type(model) or (name, change.path) in taken:
                continue
            value = module.__dict__.get(change.path[0]) if len(change.path) == 1 else None
            if value == change.old and self._signature(name) == mine:
                found.append(AttributeChange(name, change.path, value, change.new))
        return found

    def _signature(self, name: str) -> list[str]:
        return sorted(
            f"{operator[len(name) :]}{change}"
            for operator, change in self.stage.cut.operator.items()
            if operator.startswith(f"{name}.")
        )


def declares(module: nn.Module) -> bool:
    pruner = module_pruner_reg.get(type(module))
    has_tensors = any(True for _ in module.parameters(recurse=False))
    return pruner is not None and (
        has_tensors or not pruner.__module__.startswith("torchpruner_core")
    )


def _holds(value: Any, entries: Sequence[int]) -> bool:
    """Tell whether an attribute is a tensor of just these whole numbers, along one axis."""
    if type(value) is not torch.Tensor or value.is_meta or value.dtype not in WHOLE_NUMBERS:
        return False
    long = sum(size != 1 for size in value.shape)
    return long <= 1 and value.ravel().tolist() == list(entries)


def _is_same(old: Call, call: Call) -> bool:
    return (old.module, old.function, old.nth) == (call.module, call.function, call.nth)


def _sizes_by_module(stage: Stage) -> dict[str, set[int]]:
    """Return the sizes and integer arguments seen in each module and below it."""
    sizes: dict[str, set[int]] = {"self": set()}
    for call in stage.everything:
        seen = set(call.integers)
        for shape in call.shapes:
            seen.update(shape)
        name = call.module
        while True:
            sizes.setdefault(name, set()).update(seen)
            if name == "self":
                break
            name = name.rpartition(".")[0]
    return sizes


def _amounts_by_module(stage: Stage) -> dict[str, list[int]]:
    """Return what may be taken off a size in each module: its own operators' changes come first."""
    everywhere: dict[int, None] = {}
    for change in stage.cut.operator.values():
        for amount in change.values():
            entries = amount if isinstance(amount, list) else [amount]
            everywhere.update(dict.fromkeys(int(a) for a in entries if a > 0))
    for vector in sorted(stage.allowed.vectors):
        everywhere.update(dict.fromkeys(v for v in vector if v > 0))
    amounts = {"self": list(everywhere)}
    for operator, change in stage.cut.operator.items():
        own = operator_owner(operator)[0]
        mine = amounts.setdefault(own, [])
        for amount in change.values():
            mine.extend(int(a) for a in (amount if isinstance(amount, list) else [amount]) if a > 0)
    return {name: list(dict.fromkeys([*mine, *everywhere])) for name, mine in amounts.items()}
