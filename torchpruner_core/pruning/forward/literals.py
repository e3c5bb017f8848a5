"""Which attributes must change so that ``forward()`` follows a cut.

A constant that a cut changes (eight heads become seven) is in Python one of three things: computed
from ``x.shape`` (it follows by itself), an attribute of a module (``self.num_heads``), or written in
the code. No list of class names tells which; a rehearsal does. Where it fails, integers in the
modules around the failure that equal an old size are tried, each lowered by what the cut removes,
and kept if the rehearsal gets further. What cannot be decided is refused.

It may be assumed here that the model is only read (each try is a rehearsal on shadows, see
:mod:`.rehearsal`), that :mod:`.candidates` yields the right change among others, and that a rehearsal which
gets further is progress. It may not be assumed that one which ends is right: where a constant must change,
values decide (:mod:`.proof`), and without values a doubt is a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torchpruner_core.errors import CutMismatchError
from torchpruner_core.pruning.forward.candidates import Candidates, Change, declares
from torchpruner_core.pruning.forward.corrections import SIZES, Correction
from torchpruner_core.pruning.forward.lazily import emptied
from torchpruner_core.pruning.forward.proof import TOLERANCE
from torchpruner_core.pruning.forward.proof import difference as compare
from torchpruner_core.pruning.forward.refusal import refusal
from torchpruner_core.pruning.forward.rehearsal import Outcome, Stage
from torchpruner_core.pruning.forward.slots import slots
from torchpruner_core.pruning.forward.tables import described
from torchpruner_core.pruning.forward.trace import Call
from torchpruner_core.pruning.tensors.journal import AttributeChange

ATTEMPTS = 600
"""Rehearsals at most; a 32-layer model whose layers all change needs about 100."""

POSITIONS = frozenset({"starts", "ends", "indices"})
"""Constants that say places: another place may have the same shape."""

ROUNDS = 20
"""Corrections of places may show further ones, which are then found in the next round."""

KEPT_ALONE = 16
"""So many numbers that may have been read off a size are also tried one by one."""

_SIZE_NAME = re.compile(r"head|size|dim|feature|channel|width|hidden|inner|embed", re.I)


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
        self.candidates = Candidates(stage)
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
        if corrected and not self.stage.holds_for_another_run([*self.declared, *found]):
            numbers = "; ".join(str(change) for change in found if isinstance(change, Correction))
            reason = (
                f"and what would correct it ({numbers}) counts calls that a first run alone makes: make "
                "what it keeps in __init__, or run the model once before the cut"
            )
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
        together = [] if changes else self.candidates.listed_together()
        if together and self._try(together).position >= now.position:
            settled = self._search(together, seen)
            if settled is not None:
                return settled
        exact, *likely = self.candidates.of_attributes(now)
        tiers: list[Iterable[Change]] = [
            self.candidates.listed(), exact, self.candidates.shortened(now), *likely
        ]  # fmt: skip
        if self.correct_forward:
            # What the cut itself says of this call is no guess, as most attributes are.
            tiers.insert(2, self.candidates.told(now))
            tiers.append(self.candidates.corrections(now))
        elif now.computes_otherwise and now.call is not None and now.failing is not None:
            tiers.append(self.candidates.kept_numbers(now.call, now.failing))
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
            together = [*grown, *self.candidates.alike(grown[-1], grown)]
            if len(together) > len(grown) and self._try(together).position >= -position:
                grown = together
            found = self._search(grown, seen)
            if found is not None:
                return found
        return None

    def _kept(self, changes: list[Change], now: Outcome) -> list[Change] | None:
        """Return ``changes`` with corrections that keep numbers which may have been read off a size."""
        fresh: list[Change] = [
            kept for old, call in now.counted for kept in self.candidates.kept_numbers(old, call)
        ]
        for more in [fresh, *([each] for each in fresh[:KEPT_ALONE] if len(fresh) > 1)]:
            grown = [*changes, *more]
            if more and self._try(grown).good and self._is_certain(grown):
                return grown
        return None

    def _anew(self, changes: list[Change], now: Outcome) -> list[Change] | None:
        """Return ``changes`` with one that takes away what the forward keeps in the sizes of before."""
        known = self.stage.cut.shapes
        for name in self.candidates.around(now.module) if not changes else ():
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
                for correction in self.candidates.place_after(old, call)
                if (correction.module, correction.function, correction.nth) not in taken
            ]
            if not fresh:
                break
            grown += fresh
            outcome = self._try(grown)
            if outcome.good and self._is_certain(grown):
                return grown
        return None

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
            if declares(self.modules[name]):
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


def _key(changes: Iterable[Change]) -> frozenset[str]:
    return frozenset(
        repr(c) if isinstance(c, Correction) else f"{c.module} {c.path} {described(c.new)}"
        for c in changes
    )
