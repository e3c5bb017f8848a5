"""Fitting the weights that lost inputs: in turn from the pruned model, or at once from the whole one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from torchpruner_core.calibration.as_found import as_found
from torchpruner_core.calibration.moments import Accumulator, Observer, observe
from torchpruner_core.calibration.readings import Reading, Watch
from torchpruner_core.recovery import reconstruction
from torchpruner_core.recovery.in_turn import InTurn, Values, together
from torchpruner_core.recovery.pair import Pair
from torchpruner_core.recovery.reconstruction import Fit, Gram, Lost

SUMMANDS = frozenset(
    f"aten.{name}"
    for name in ("add.Tensor", "add_.Tensor", "cat.default", "embedding.default", "mul.Tensor")
)
"""Operators whose parameters are no factor of a product: positions, class tokens, embeddings, scales."""

UNSEEN = "no product with it was seen (it is computed, cast or never used)"


class Fitting:
    """The weights of a pair that have other inputs than before, and what was found out about them.

    ``skipped`` says why weights that lost inputs are left as they are; ``biases`` are those that take part.
    """

    def __init__(self, pair: Pair, method: str, strength: float, memory: int) -> None:
        self.pair, self.method = pair, method
        self.strength, self.memory = strength, memory
        self.skipped: dict[str, str] = {}
        self.biases: set[str] = set()
        self._turn: set[Reading] = set()
        self._seen: set[Reading] = set()

    def look(self) -> bool:
        """See which weights can be fitted in turn; return whether some are left for :meth:`at_once`.

        Those are used more than once, or by none of the first batches.
        """
        self._joined = probe, _, _ = together(self.pair, self.memory)
        self._seen.update(probe.calls)
        reasons = {reading: self._reason(reading, probe.watch) for reading in probe.calls}
        often = {reading.weight for reading, count in probe.calls.items() if count > 1}
        self._turn = {r for r, why in reasons.items() if why is None and r.weight not in often}
        losing = {reading for reading in probe.calls if self._lost(reading)}
        self.skipped.update({r.weight: why for r in losing if (why := reasons[r]) is not None})
        left = {r.weight for r in losing - self._turn} - self.skipped.keys()
        return bool(left) or bool(self._unseen(probe.watch))

    def in_turn(self, write: Callable[[Values], None]) -> None:
        """Fit weight after weight, each from what it reads in the pruned model by then.

        ``write`` gets a weight's new values before it is used, so that whatever comes after it sees what
        it will see.
        """
        turn = InTurn(self.pair, self._turn, self.strength, self._bias, write)
        turn.run(*self._joined)
        found = (self._bias(reading) for reading in turn.fitted)
        self.biases |= {bias for bias in found if bias is not None}

    def forget(self) -> None:
        """Leave to :meth:`at_once` what was fitted in turn."""
        self._turn.clear()

    def at_once(self) -> Values:
        """Return new whole weights and biases, every one from what it reads in the whole model.

        Those that are not fitted in turn. One pass over the batches, and more where the Gram matrices need
        more than ``memory``.
        """
        changed: Values = {}
        done: set[Reading] = set()
        while True:
            grams, watch, postponed = self._grams(done)
            for reading, gram in grams.items():
                done.add(reading)
                reason = self._reason(reading, watch)
                if reason is None:
                    reconstruction.check_gram(reading, gram)
                    self._apply(reading, changed, gram)
                else:
                    self.skipped[reading.weight] = reason
            if not postponed:
                break
            self.pair.run.passes += 1
        self.skipped.update(self._unseen(watch))
        return changed

    def _apply(self, reading: Reading, changed: Values, gram: Gram) -> None:
        tensors = self.pair.local.tensors
        bias = self._bias(reading)
        weight = changed.get(reading.weight)
        weight = tensors[reading.weight].detach().clone() if weight is None else weight
        added: torch.Tensor | None = None
        if bias is not None:
            added = changed.get(bias)
            added = tensors[bias].detach().clone() if added is None else added
            changed[bias] = added
            self.biases.add(bias)
        original = tensors[reading.weight]
        for lost in self._lost(reading):
            position = reading.blocks.index(lost.block)
            fit = self._fit(lost, gram, centred=added is not None)
            reconstruction.give_over(original, weight, added, position, lost, fit)
        if self.method == "ridge":
            changed[reading.weight] = weight

    def _fit(self, lost: Lost, gram: Gram, centred: bool) -> Fit:
        if self.method == "bias":
            return reconstruction.mean_only(gram, lost)
        return reconstruction.ridge(gram, lost, self.strength, centred)

    def _lost(self, reading: Reading) -> list[Lost]:
        axes = self.pair.axes.get(reading.weight)
        if axes is None:
            return []
        return reconstruction.lost_features(reading, self.pair.local.tensors[reading.weight], axes)

    def _grams(self, done: set[Reading]) -> tuple[dict[Reading, Gram], Watch, bool]:
        postponed: set[Reading] = set()
        used = 0

        def start(reading: Reading) -> Accumulator | None:
            nonlocal used
            self._seen.add(reading)
            if reading in done or reading in postponed or reading in self._turn:
                return None
            lost = self._lost(reading)
            if not lost:
                return None
            gram = reconstruction.gram_of(lost, self.pair.run.device)
            size = reconstruction.gram_bytes(gram, reading)
            if used and used + size > self.memory:
                postponed.add(reading)
                return None
            used += size
            return gram

        observer = Observer(start)
        with as_found(self.pair.whole):
            watch = observe(self.pair.whole, self.pair.run, self.pair.run, observer)
        found = {r: gram for r, gram in observer.found.items() if isinstance(gram, Gram)}
        return found, watch, bool(postponed)

    def _reason(self, reading: Reading, watch: Watch) -> str | None:
        """Return why a weight cannot take over for its removed inputs, if it cannot."""
        tensor = self.pair.local.tensors[reading.weight]
        names = self.pair.local.names[id(tensor)]
        if len(names) > 1:
            return f"it is {names[1]} too, which would change along"
        others = watch.otherwise.get(reading.weight)
        if others:
            return f"{sorted(others)[0]} reads it too, and would change along"
        views = [block for r in self._seen if r.weight == reading.weight for block in r.blocks]
        if sum(block.elements for block in views) > tensor.numel():
            return "it is read in views that overlap"
        if self.method == "bias" and self._bias(reading) is None:
            return "it has no bias of its own to put the mean into"
        return None

    def _bias(self, reading: Reading) -> str | None:
        if reading.bias is None:
            return None
        names = self.pair.local.names[id(self.pair.local.tensors[reading.bias])]
        readers = {r.weight for r in self._seen if r.bias == reading.bias}
        return reading.bias if len(names) == 1 and len(readers) == 1 else None

    def _unseen(self, watch: Watch) -> dict[str, str]:
        """Return the weights that must be factors of a product, and were seen in none, with the reason."""
        seen = {reading.weight for reading in self._seen}
        found = {}
        for name, axes in self.pair.axes.items():
            tensor = self.pair.local.tensors[name]
            names = self.pair.local.names[id(tensor)]
            others = watch.otherwise.get(name, set())
            if (
                isinstance(tensor, nn.Parameter)
                and tensor.dim() > 1
                and not seen & set(names)
                and any(axis is not None for axis in axes[1:])
                and names[0] == name
                and not others & SUMMANDS
            ):
                found[name] = UNSEEN if not others else f"{min(others)} reads it, and is no product"
        return found
