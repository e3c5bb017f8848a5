"""Which attributes must change so that ``forward()`` follows a cut.

A constant that a cut changes (eight heads become seven) is in Python one of three things: computed
from ``x.shape`` (it follows by itself), an attribute of a module (``self.num_heads``), or written in
the code. No list of class names tells which; a rehearsal does. Where it fails, integers in the
modules around the failure that equal an old size are tried, each lowered by what the cut removes,
and kept if the rehearsal gets further. What cannot be decided is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from torchpruner_core.cut_dict import operator_owner
from torchpruner_core.errors import CutMismatchError
from torchpruner_core.pruning.forward.corrections import SIZES, SPLITTING, Correction, kind_of
from torchpruner_core.pruning.forward.lazily import emptied
from torchpruner_core.pruning.forward.proof import TOLERANCE
from torchpruner_core.pruning.forward.proof import difference as compare
from torchpruner_core.pruning.forward.refusal import refusal
from torchpruner_core.pruning.forward.rehearsal import Outcome, Stage, split_sizes
from torchpruner_core.pruning.forward.trace import Call
from torchpruner_core.pruning.module_pruners.registry import module_pruner_reg
from torchpruner_core.pruning.tensors.journal import AttributeChange
from torchpruner_core.pruning.tensors.positions import WHOLE_NUMBERS

ATTEMPTS = 600
"""Rehearsals at most; a 32-layer model whose layers all change needs about 100."""

POSITIONS = frozenset({"starts", "ends", "indices"})
"""Constants that say places: another place may have the same shape."""

ROUNDS = 20
"""Corrections of places may show further ones, which are then found in the next round."""

KEPT_ALONE = 16
"""So many numbers that may have been read off a size are also tried one by one."""

_SKIPPED = {"training", "dump_patches", "call_super_init"}
_SIZE_NAME = re.compile(r"head|size|dim|feature|channel|width|hidden|inner|embed", re.I)


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


Change = AttributeChange | Correction


def find_changes(
    stage: Stage, declared: list[AttributeChange], correct_forward: bool = False
) -> list[Change]:
    """Return the changes, beyond ``declared``, with which the pruned forward is right.

    Attributes only, unless ``correct_forward`` allows to correct calls as they run. Raises
    :class:`LiteralInForwardError` where there are none, and :class:`CutMismatchError` where the model
    does not run on the inputs that the caller gave.
    """
    if stage.failure and not stage.everything:
        if not stage.plan.untaken and stage.cannot_run_given:
            raise CutMismatchError(
                f"the model does not run on the inputs given ({stage.failure}), so nothing tells "
                "whether its forward() follows the cut; give inputs that it takes, or none"
            )
        if not stage.plan.untaken:
            return []
        raise refusal(
            stage,
            f"and the forward could not be rehearsed ({stage.failure}): pass inputs= to set_cut",
            correct_forward,
        )
    return _Search(stage, declared, correct_forward).run()


class _Search:
    def __init__(
        self, stage: Stage, declared: list[AttributeChange], correct_forward: bool
    ) -> None:
        self.stage, self.declared, self.correct_forward = stage, declared, correct_forward
        self.modules = stage.plan.local.modules
        self.sizes = _sizes_by_module(stage)
        self.amounts = _amounts_by_module(stage)
        self.best: Outcome | None = None
        self.refuted: float | None = None
        """How far the values of a candidate were off whose shapes were right."""
        self._outcomes: dict[frozenset[str], Outcome] = {}
        self._differences: dict[frozenset[str], float | None] = {}

    def run(self) -> list[Change]:
        plan = self.stage.plan
        unsaid = not plan.untaken and not plan.stale and self._try([]).diverged
        # Nothing says that a constant must change; another path is no proof of it, values are.
        if unsaid and self._proven([]):
            return []
        found = self._search([], set())
        assert self.best is not None
        # Another number in a computation is no other way to write the same one.
        if found is None and not self.best.computes_otherwise and self._proven([]):
            found = []
        if found is None:
            reason = f"and no attribute explains it: {self._reason()}"
            raise refusal(self.stage, reason, self.correct_forward, self.best)
        corrected = any(isinstance(change, Correction) for change in found)
        if corrected and not self.stage.holds_for_another_batch([*self.declared, *found]):
            numbers = "; ".join(str(change) for change in found if isinstance(change, Correction))
            reason = f"and what would correct it ({numbers}) holds for a batch of this size only"
            raise refusal(self.stage, reason, self.correct_forward, self.best)
        return self._follow_names(found)

    def _reason(self) -> str:
        assert self.best is not None
        if self.best.reason:
            return self.best.reason
        if self.refuted is None and self.best.counted:
            return (
                f"{self.best.counted[0][1].function} would take other numbers, and there are no values to "
                "tell whether they are part of what is computed"
            )
        if self.refuted is None:
            return "there are no values to tell whether it still means the same slices"
        if self.refuted == float("inf"):
            return f"the pruned forward fails with values ({self.stage.failed_with_values})"
        return (
            f"the pruned forward computes something else: its outputs are off by {self.refuted:.2g}"
        )

    def _try(self, changes: Sequence[Change]) -> Outcome:
        """Rehearse with these changes, once."""
        key = _key(changes)
        if key not in self._outcomes:
            candidate = self.stage.candidate([*self.declared, *changes])
            self._outcomes[key] = self.stage.rehearse(candidate)
        outcome = self._outcomes[key]
        if self.best is None or outcome.position >= self.best.position:
            self.best = outcome
        return outcome

    def _search(self, changes: list[Change], seen: set[frozenset[str]]) -> list[Change] | None:
        now = self._try(changes)
        if (now.good and self._is_certain(changes)) or (now.diverged and self._proven(changes)):
            return changes
        key = _key(changes)
        if key in seen or self.stage.attempts > ATTEMPTS:
            return None
        seen.add(key)
        taken = {(c.module, c.path) for c in changes if isinstance(c, AttributeChange)}
        settled = self._kept(changes, now) or self._anew(changes, now) or self._placed(changes)
        if settled is not None:
            return settled
        tiers: list[Iterable[Change]] = [self._listed(), *self._candidates(now)]
        if self.correct_forward:
            tiers.append(self._corrections(now))
        elif now.computes_otherwise and now.call is not None and now.failing is not None:
            tiers.append(self._kept_numbers(now.call, now.failing))
        for tier in tiers:
            fresh = [
                c for c in tier if isinstance(c, Correction) or (c.module, c.path) not in taken
            ]
            found = self._grow(changes, fresh, now, seen)
            if found is not None:
                return found
        return None

    def _grow(
        self,
        changes: list[Change],
        candidates: list[Change],
        now: Outcome,
        seen: set[frozenset[str]],
    ) -> list[Change] | None:
        """Go on from each candidate that gets the rehearsal further, the furthest first."""
        ranked: list[tuple[int, int, list[Change]]] = []
        for rank, change in enumerate(self._without_doubt(changes, candidates)):
            if self.stage.attempts > ATTEMPTS:
                break
            outcome = self._try([*changes, change])
            if outcome.good:
                if self._is_certain([*changes, change]):
                    return [*changes, change]
                continue
            if outcome.position > now.position:
                ranked.append((-outcome.position, rank, [*changes, change]))
        ranked.sort(key=lambda entry: entry[:2])
        for position, _, grown in ranked:
            together = [*grown, *self._alike(grown[-1], grown)]
            if len(together) > len(grown) and self._try(together).position >= -position:
                grown = together
            found = self._search(grown, seen)
            if found is not None:
                return found
        return None

    def _kept(self, changes: list[Change], now: Outcome) -> list[Change] | None:
        """Return ``changes`` with corrections that keep numbers which may have been read off a size."""
        fresh: list[Change] = [
            kept for old, call in now.counted for kept in self._kept_numbers(old, call)
        ]
        for more in [fresh, *([each] for each in fresh[:KEPT_ALONE] if len(fresh) > 1)]:
            grown = [*changes, *more]
            if more and self._try(grown).good and self._is_certain(grown):
                return grown
        return None

    def _anew(self, changes: list[Change], now: Outcome) -> list[Change] | None:
        """Return ``changes`` with one that takes away what the forward keeps in the sizes of before."""
        known = self.stage.cut.shapes
        for name in self._around(now.module) if not changes else ():
            for change in emptied(name, self.modules[name], known):
                outcome = self._try([*changes, change])
                certain = outcome.good and self._is_certain([*changes, change])
                if certain or (outcome.diverged and self._proven([*changes, change])):
                    return [*changes, change]
        return None

    def _placed(self, changes: list[Change]) -> list[Change] | None:
        """Return ``changes`` with corrections of every place in the code that means other slices now."""
        if not self.correct_forward:
            return None
        grown = list(changes)
        for _ in range(ROUNDS):
            outcome = self._try(grown)
            taken = {(c.module, c.function, c.nth) for c in grown if isinstance(c, Correction)}
            fresh = [
                correction
                for old, call in outcome.places
                for correction in self._place_after(old, call)
                if (correction.module, correction.function, correction.nth) not in taken
            ]
            if not fresh:
                break
            grown += fresh
            outcome = self._try(grown)
            if outcome.good and self._is_certain(grown):
                return grown
        return None

    def _place_after(self, old: Call, call: Call) -> Iterator[Correction]:
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

    def _listed(self) -> Iterator[Change]:
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

    def _kept_numbers(self, old: Call, call: Call) -> Iterator[Correction]:
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

    def _without_doubt(self, changes: list[Change], candidates: list[Change]) -> list[Change]:
        """Return the candidates; guessed lengths that get further than all others are no guess."""
        guesses = [
            c for c in candidates if isinstance(c, Correction) and c.guessed and c.argument == SIZES
        ]
        reached = [self._try([*changes, guess]).position for guess in guesses]
        best = [g for g, position in zip(guesses, reached, strict=True) if position == max(reached)]
        if len(best) != 1:
            return candidates
        decided = replace(best[0], guessed=False)
        return [decided if c is best[0] else c for c in candidates]

    def _corrections(self, outcome: Outcome) -> Iterator[Correction]:
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
            yield from self._kept_numbers(old, call)
            return
        yield from self._place_after(old, call)
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

    def _candidates(self, outcome: Outcome) -> Iterator[list[Change]]:
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
        for name in self._around(outcome.module):
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

    def _around(self, name: str) -> list[str]:
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
            n for n in dict.fromkeys(names) if n in self.modules and not _declares(self.modules[n])
        ]

    def _alike(self, change: Change, changes: Sequence[Change]) -> list[Change]:
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

    def _is_certain(self, changes: Sequence[Change]) -> bool:
        """Tell whether a candidate whose shapes are right is right.

        Values decide where they can. Without them shapes must do, but for places: where nothing
        says that a place in the code has moved with its slices, it has not.
        """
        plan, outcome = self.stage.plan, self._try(changes)
        guessed = any(isinstance(c, Correction) and c.guessed for c in changes)
        looked_at = self.stage.device == "cpu"  # so numbers may have been made out of sight
        open_ = outcome.suspects or outcome.moved or outcome.counted or looked_at
        if not (changes or plan.untaken or plan.stale or open_):
            return True
        difference = self._difference(changes)
        if difference is None:
            places = any(POSITIONS & change.keys() for change in plan.untaken.values())
            stays = places and not changes and not outcome.moved
            return not (guessed or stays or outcome.counted)
        if difference > TOLERANCE and outcome.good:
            self.refuted = difference
        return difference <= TOLERANCE

    def _difference(self, changes: Sequence[Change]) -> float | None:
        key = _key(changes)
        if key not in self._differences:
            self._differences[key] = compare(self.stage, [*self.declared, *changes])
        return self._differences[key]

    def _proven(self, changes: Sequence[Change]) -> bool:
        """Tell whether the values prove a candidate right, where its shapes leave it open.

        An exporter may write a computation with other intermediate shapes than the code's, and a
        forward may branch on a size; only the outputs tell then.
        """
        difference = self._difference(changes)
        return difference is not None and difference <= TOLERANCE

    def _follow_names(self, changes: list[Change]) -> list[Change]:
        """Let attributes that merely describe a size follow it, if the forward does not mind.

        In a module whose operators change, an integer with the name of a size whose every
        occurrence among the module's shapes became the same smaller number.
        """
        pairs = self._pairs(self._try(changes))
        described = []
        taken = {
            (c.module, c.path) for c in [*changes, *self.declared] if isinstance(c, AttributeChange)
        }
        for name in sorted(self.stage.owners & self.modules.keys()):
            became: dict[int, set[int]] = {}
            for old, new in pairs:
                if old.module == name or old.module.rpartition(".")[0] == name:
                    for before, now in zip(old.shapes, new.shapes, strict=True):
                        for x, y in zip(before, now, strict=False):
                            became.setdefault(x, set()).add(y)
            if _declares(self.modules[name]):
                continue
            for slot in slots(name, self.modules[name]):
                sizes = became.get(slot.value, set())
                if (
                    len(slot.path) == 1
                    and slot.item is None
                    and (name, slot.path) not in taken
                    and _SIZE_NAME.search(slot.path[0])
                    and len(sizes) == 1
                    and min(sizes) < slot.value
                ):
                    described.append(slot.lowered(slot.value - min(sizes)))
        if described and self._try([*changes, *described]).good:
            return [*changes, *described]
        for change in described:
            if self.stage.attempts <= ATTEMPTS and self._try([*changes, change]).good:
                changes = [*changes, change]
        return changes

    def _pairs(self, right: Outcome) -> list[tuple[Call, Call]]:
        """Return each call before the cut with the same one in the rehearsal that was right."""
        pairs = list(zip(self.stage.everything, right.calls, strict=False))
        together = [(x, y) for x, y in pairs if (x.module, x.function) == (y.module, y.function)]
        return together if len(together) == len(pairs) else []


def _holds(value: Any, entries: Sequence[int]) -> bool:
    """Tell whether an attribute is a tensor of just these whole numbers, along one axis."""
    if type(value) is not torch.Tensor or value.is_meta or value.dtype not in WHOLE_NUMBERS:
        return False
    long = sum(size != 1 for size in value.shape)
    return long <= 1 and value.ravel().tolist() == list(entries)


def _is_same(old: Call, call: Call) -> bool:
    return (old.module, old.function, old.nth) == (call.module, call.function, call.nth)


def _key(changes: Iterable[Change]) -> frozenset[str]:
    return frozenset(map(repr, changes))


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


def _declares(module: nn.Module) -> bool:
    pruner = module_pruner_reg.get(type(module))
    has_tensors = any(True for _ in module.parameters(recurse=False))
    return pruner is not None and (
        has_tensors or not pruner.__module__.startswith("torchpruner_core")
    )


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
