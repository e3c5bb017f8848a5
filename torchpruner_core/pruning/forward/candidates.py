"""What may be tried where a rehearsal fails: attributes to lower, calls to correct.

A candidate need not be right: :mod:`.literals` rehearses each, and values decide. So what matters here is
that the right one is among them, and early. It is assumed that a size falls by an amount that the cut removes
somewhere, that its carrier is near the call that fails, and that modules of one class which the cut treats
alike are written alike. Nothing is run and nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from torchpruner_core.cut_dict import operator_owner
from torchpruner_core.pruning.forward.arithmetic import CREATING, SHAPING
from torchpruner_core.pruning.forward.corrections import SIZES, SPLITTING, Correction, kind_of
from torchpruner_core.pruning.forward.rehearsal import (
    Outcome,
    Stage,
    has_values,
    sizes_after,
    split_sizes,
)
from torchpruner_core.pruning.forward.slots import Slot, slots
from torchpruner_core.pruning.forward.tables import (
    described,
    positions_in,
    shape_of,
    tables,
    with_positions,
    without,
)
from torchpruner_core.pruning.forward.trace import Call
from torchpruner_core.pruning.mentions import is_own, mentioned
from torchpruner_core.pruning.module_pruners.registry import module_pruner_reg
from torchpruner_core.pruning.tensors.journal import STORES, AttributeChange

Change = AttributeChange | Correction


class Candidates:
    """The changes that might let the forward of ``stage`` follow its cut, the likeliest first."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.modules = stage.plan.local.modules
        self.sizes = _sizes_by_module(stage)
        self.amounts = _amounts_by_module(stage)
        self.mentioned = mentioned(self.modules.values())

    def listed(self) -> Iterator[Change]:
        """Yield new contents of attributes that list positions which the program holds, one for each list."""
        for before, after in self._renumbered():
            yield from self._relisted([(before, after)])

    def listed_together(self) -> list[Change]:
        """Return those changes at once, every list of positions being another one."""
        pairs = self._renumbered()
        befores = [before for before, _ in pairs]
        alone = [pair for pair in pairs if befores.count(pair[0]) == 1]
        return list(self._relisted(alone)) if len(alone) > 1 else []

    def _relisted(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Iterator[Change]:
        for path, key, value in self._attributes(self.modules):
            current = value
            for before, after in pairs:
                for table, rebuilt in tables(current):
                    if positions_in(table) == before:
                        current = rebuilt(with_positions(table, after))
                        break
            if current is not value:
                yield AttributeChange(path, (key,), value, current)

    def _renumbered(self) -> list[tuple[list[int], list[int]]]:
        """Return the positions that no tensor of the model lists, before and after the cut."""
        cut = self.stage.cut
        found = []
        for name, renumbering in cut.renumbers.items():
            if renumbering.values is None or name in self.stage.plan.local.tensors:
                continue
            entries = np.array(renumbering.values)
            for axis, gone in enumerate(self.stage.plan.literals.get(name, ())):
                if gone is not None:
                    entries = np.delete(entries.reshape(cut.shapes[name]), gone, axis=axis)
            after = renumbering.apply(entries).ravel().tolist()
            found.append((list(renumbering.values), after))
        return found

    def shortened(self, outcome: Outcome) -> Iterator[Change]:
        """Yield tables near a failure less the slices that go from what is as long as they are."""
        for path, key, value in self._attributes(self.around(outcome.module)):
            for table, rebuilt in tables(value):
                for axis, size in enumerate(shape_of(table)):
                    removals = self.stage.allowed.removals(size)
                    if len(removals) > 1 and not has_values(self.stage.root):
                        continue  # nothing would tell which of them it is
                    for gone in removals:
                        new = rebuilt(without(table, axis, gone))
                        yield AttributeChange(path, (key,), value, new)

    def _attributes(self, names: Iterable[str]) -> Iterator[tuple[str, str, Any]]:
        """Yield the attributes that the code of some modules may read: module, name, value."""
        for path in names:
            for key, value in list(self.modules[path].__dict__.items()):
                if key not in STORES and key in self.mentioned:
                    yield path, key, value

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

    def told(self, outcome: Outcome) -> Iterator[Correction]:
        """Yield those corrections of the failing call whose new numbers the cut itself says."""
        old, call = outcome.call, outcome.failing
        if old is None or call is None or call.function not in SHAPING:
            return
        place = (call.module, call.function, call.nth)
        if call.function in SPLITTING:
            sizes = list(split_sizes(self.stage.cut, old))
            if not sizes and old.integers != call.integers:
                # An attribute that some other call needs smaller: this one stays as it was.
                kept = sizes_after(old, [0] * len(old.shapes))
                sizes = [each for each in kept if old.integers[: len(each)] == each]
            for each in sizes:
                yield Correction(*place, SIZES, None, each)
            return
        if kind_of(call.function) != kind_of(old.function):
            return
        yield from self._told_numbers(old, call)

    def _told_numbers(self, old: Call, call: Call) -> Iterator[Correction]:
        """Yield numbers of a call that the cut says of a tensor of its shape, or that stay."""
        place = (call.module, call.function, call.nth)
        changes = self._told(old)
        before = dict(old.numbers)
        for path, value in call.numbers:
            if type(value) is not int or type(before.get(path)) is not int:
                continue
            if value != before[path]:
                yield Correction(*place, path, value, before[path])
            for x, y in changes:
                if before[path] == x and value != y:
                    yield Correction(*place, path, value, y)

    def _corrections_of(self, old: Call, call: Call) -> Iterator[Correction]:
        if kind_of(call.function) != kind_of(old.function):
            return
        place = (call.module, call.function, call.nth)
        if old.scalars != call.scalars:
            yield from self.kept_numbers(old, call)
            return
        yield from self.place_after(old, call)
        if call.function in CREATING:
            yield from self._told_numbers(old, call)
            return
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
                if self._is_never_read(name, slot):
                    continue
                exact.extend(slot.lowered(x - y) for x, y in told if x == slot.value)
                tier = around
                if name == outcome.module and len(slot.path) == 1:
                    tier = likely if slot.value in near else own
                tier.extend(slot.lowered(a) for a in amounts if slot.value - a >= 1)
        yield from (exact, likely, own, around)

    def _is_never_read(self, name: str, slot: Slot) -> bool:
        """Tell whether no code of the model mentions the attribute that holds a number."""
        alone = len(slot.path) == 1 and is_own(type(self.modules[name]))
        return alone and slot.path[0] not in self.mentioned

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
            if described(value) == described(change.old) and self._signature(name) == mine:
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
