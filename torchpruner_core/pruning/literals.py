"""Which attributes must change so that ``forward()`` follows a cut.

A constant that a cut changes (eight heads become seven) is in Python one of three things: computed
from ``x.shape`` (it follows by itself), an attribute of a module (``self.num_heads``), or written in
the code. No list of class names tells which; a rehearsal does. Where it fails, integers in the
modules around the failure that equal an old size are tried, each lowered by what the cut removes,
and kept if the rehearsal gets further. What cannot be decided is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from torchpruner_core.module_pruner.registry import module_pruner_reg
from torchpruner_core.pruning.cut_dict import operator_owner
from torchpruner_core.pruning.errors import LiteralInForwardError
from torchpruner_core.pruning.journal import AttributeChange
from torchpruner_core.pruning.rehearsal import Outcome, Stage

ATTEMPTS = 600
"""Rehearsals at most; a 32-layer model whose layers all change needs about 100."""

TOLERANCE = 1e-3
"""Relative difference from the masked model below which values confirm what shapes leave open."""

_SKIPPED = {"training", "dump_patches", "call_super_init"}
_SIZE_NAME = re.compile(r"head|size|dim|feature|channel|width|hidden|inner|embed|planes", re.I)


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


def find_attributes(stage: Stage, declared: list[AttributeChange]) -> list[AttributeChange]:
    """Return the attribute changes, beyond ``declared``, with which the pruned forward is right.

    Raises :class:`LiteralInForwardError` where there are none.
    """
    if stage.failure and not stage.before.calls:
        if not stage.plan.untaken:
            return []
        raise _refusal(
            stage,
            f"and the forward could not be rehearsed ({stage.failure}): pass inputs= to set_cut",
        )
    return _Search(stage, declared).run()


class _Search:
    def __init__(self, stage: Stage, declared: list[AttributeChange]) -> None:
        self.stage, self.declared = stage, declared
        self.modules = stage.plan.local.modules
        self.sizes = _sizes_by_module(stage)
        self.amounts = _amounts_by_module(stage)
        self.best: Outcome | None = None

    def run(self) -> list[AttributeChange]:
        found = self._search([], set())
        if found is None:
            found = self._by_value()
        if found is None:
            assert self.best is not None
            raise _refusal(
                self.stage, f"and no attribute explains it: {self.best.reason}", self.best
            )
        return self._follow_names(found)

    def _try(self, changes: list[AttributeChange]) -> Outcome:
        outcome = self.stage.rehearse(self.stage.candidate(self.declared + changes))
        if self.best is None or outcome.position >= self.best.position:
            self.best = outcome
        return outcome

    def _search(
        self, changes: list[AttributeChange], seen: set[frozenset[Any]]
    ) -> list[AttributeChange] | None:
        now = self._try(changes)
        if now.good:
            return changes
        key = frozenset((c.module, c.path, str(c.new)) for c in changes)
        if key in seen or self.stage.attempts > ATTEMPTS:
            return None
        seen.add(key)
        ranked: list[tuple[int, int, list[AttributeChange]]] = []
        taken = {(c.module, c.path) for c in changes}
        for rank, change in enumerate(self._candidates(now)):
            if (change.module, change.path) in taken or self.stage.attempts > ATTEMPTS:
                continue
            outcome = self._try([*changes, change])
            if outcome.good:
                return [*changes, change]
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

    def _candidates(self, outcome: Outcome) -> Iterator[AttributeChange]:
        """Yield changes that might mend a failure, the likeliest first."""
        near = set(outcome.call.integers) if outcome.call else set()
        for shape in outcome.call.shapes if outcome.call else ():
            near.update(shape)
        later: list[AttributeChange] = []
        for name in self._around(outcome.module):
            amounts = self.amounts.get(name) or self.amounts["self"]
            for slot in slots(name, self.modules[name]):
                if slot.value not in self.sizes.get(name, self.sizes["self"]):
                    continue
                for amount in amounts:
                    if slot.value - amount >= 1:
                        change = slot.lowered(amount)
                        if slot.value in near and name == outcome.module:
                            yield change
                        else:
                            later.append(change)
        yield from later

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

    def _alike(
        self, change: AttributeChange, changes: list[AttributeChange]
    ) -> list[AttributeChange]:
        """Return the same change for modules of the same class that the cut treats alike."""
        model = self.modules[change.module]
        mine = self._signature(change.module)
        taken = {(c.module, c.path) for c in changes}
        found = []
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

    def _by_value(self) -> list[AttributeChange] | None:
        """Accept the model as it is where its values prove it right.

        An exporter may write a computation with other intermediate shapes than the code's; then no
        shape tells, and only the outputs do.
        """
        difference = self.stage.difference(self.declared)
        return [] if difference is not None and difference < TOLERANCE else None

    def _follow_names(self, changes: list[AttributeChange]) -> list[AttributeChange]:
        """Let attributes that merely describe a size follow it, if the forward does not mind.

        In a module whose operators change, an integer with the name of a size whose every
        occurrence among the module's shapes became the same smaller number.
        """
        outcome_calls = list(zip(self.stage.before.calls, self._final_calls(changes), strict=False))
        described = []
        taken = {(c.module, c.path) for c in changes + self.declared}
        for name in sorted(self.stage.owners & self.modules.keys()):
            became: dict[int, set[int]] = {}
            for old, new in outcome_calls:
                if old.module == name:
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

    def _final_calls(self, changes: list[AttributeChange]) -> list[Any]:
        return self.stage.calls_of(self.stage.candidate(self.declared + changes))


def slots(name: str, module: nn.Module) -> Iterator[Slot]:
    """Yield the integers that a module holds itself, in tuples, lists, dicts and config objects."""
    for key, value in module.__dict__.items():
        if key in _SKIPPED or key.startswith("_forward") or key.startswith("_backward"):
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
    for call in stage.before.calls:
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
    for vector in sorted(stage.allowed):
        everywhere.update(dict.fromkeys(v for v in vector if v > 0))
    amounts = {"self": list(everywhere)}
    for operator, change in stage.cut.operator.items():
        own = operator_owner(operator)[0]
        mine = amounts.setdefault(own, [])
        for amount in change.values():
            mine.extend(int(a) for a in (amount if isinstance(amount, list) else [amount]) if a > 0)
    return {name: list(dict.fromkeys([*mine, *everywhere])) for name, mine in amounts.items()}


def _refusal(stage: Stage, reason: str, outcome: Outcome | None = None) -> LiteralInForwardError:
    untaken = stage.plan.untaken
    operator = next(iter(untaken), stage.plan.stale[0] if stage.plan.stale else "self")
    if outcome is not None:
        operator = next((o for o in untaken if operator_owner(o)[0] == outcome.module), operator)
    owner = operator_owner(operator)[0] if operator in untaken else operator
    module = stage.plan.local.modules.get(owner)
    kind = type(module).__name__ if module is not None else "?"
    change = untaken.get(operator, {})
    constants = ", ".join(f"'{key}' by {amount}" for key, amount in change.items()) or "a constant"
    old = new = None
    if outcome is not None and outcome.call is not None:
        old = [list(shape) for shape in outcome.call.shapes]
    return LiteralInForwardError(
        f"the cut lowers {constants} of {operator}, in the forward() of {owner} ({kind}), {reason}. "
        f"Nothing was changed. Make the number an attribute or take it from a shape, register how "
        f"{kind} follows a cut with torchpruner_core.module_pruner_reg.regist({kind}, YourPruner), or "
        "use the pruned ONNX model",
        module=owner,
        operator=operator,
        constant=next(iter(change), None),
        change=dict(change),
        old=old,
        new=new,
    )
