"""Fitting the weights that lost inputs: at once from the whole model, then in turn from the pruned one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from torchpruner_core.calibration.as_found import as_found
from torchpruner_core.calibration.batches import Batches
from torchpruner_core.calibration.moments import Accumulator, Observer, check_finite, observe
from torchpruner_core.calibration.readings import Reading, Watch
from torchpruner_core.recovery import reconstruction
from torchpruner_core.recovery.pair import Pair
from torchpruner_core.recovery.reconstruction import Fit, Gram, Lost

Values = dict[str, torch.Tensor]

SUMMANDS = frozenset(
    f"aten.{name}"
    for name in ("add.Tensor", "add_.Tensor", "cat.default", "embedding.default", "mul.Tensor")
)
"""Operators whose parameters are no factor of a product: positions, class tokens, embeddings, scales."""

Beside = tuple[torch.Tensor, torch.Tensor, Reading]
"""What a weight reads in the whole model and in the pruned one, in rows, and its reading in the latter."""


class Fitting:
    """The weights of a pair that lost inputs, and what was found out about them.

    ``order`` holds the readings that can be repaired, in the order of the forward; ``skipped`` why others
    cannot; ``biases`` the biases that take part.
    """

    def __init__(self, pair: Pair, method: str, strength: float, memory: int) -> None:
        self.pair, self.method = pair, method
        self.strength, self.memory = strength, memory
        self.order: list[Reading] = []
        self.skipped: dict[str, str] = {}
        self.biases: set[str] = set()
        self._seen: set[Reading] = set()

    def at_once(self) -> Values:
        """Return new whole weights and biases, every one from what it reads in the whole model.

        One pass over the batches, and more where the Gram matrices need more than ``memory``.
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
                    self.order.append(reading)
                    self._apply(reading, changed, gram)
                else:
                    self.skipped[reading.weight] = reason
            if not postponed:
                break
            self.pair.run.passes += 1
        self._name_unseen(watch)
        return changed

    def in_turn(self, write: Callable[[Values], None]) -> None:
        """Fit weight after weight, each from what it reads in the pruned model by then.

        The first batches, put together into one as far as their shapes and ``memory`` allow, go through
        the whole model and then through the pruned one. Before a weight there is used it is fitted, and
        ``write`` gets its new values, so that whatever comes after it sees what it will see.
        """
        pair = self.pair
        wanted = set(self.order)
        with as_found(pair.whole), as_found(pair.root), torch.no_grad():
            batch = self._together()
            before: dict[str, list[tuple[Reading, torch.Tensor]]] = {}

            def keep(reading: Reading, tensor: torch.Tensor) -> None:
                before.setdefault(reading.weight, []).append(
                    (reading, tensor if reading in wanted else tensor[:0])
                )

            with Watch(pair.whole, keep):
                pair.run.run(pair.whole, batch)
            once = {
                r for r, n in Counter(r for v in before.values() for r, _ in v).items() if n == 1
            }
            changed: Values = {}

            def fit(shorter: Reading, tensor: torch.Tensor) -> None:
                calls = before.get(shorter.weight)
                if not calls:
                    return
                reading, whole = calls.pop(0)
                fits = reading in wanted & once and len(shorter.blocks) == len(reading.blocks)
                if not fits or whole.shape[:-1] != tensor.shape[:-1]:
                    return
                rows = tensor.reshape(-1, tensor.shape[-1])
                check_finite(reading, rows)
                self._apply(reading, changed, (whole.reshape(len(rows), -1), rows, shorter))
                new = {
                    name: changed[name]
                    for name in (reading.weight, reading.bias)
                    if name in changed
                }
                write(pair.shortened(new))

            with Watch(pair.root, fit):
                pair.pruned(batch)

    def _together(self) -> Any:
        """Return the first batches as one."""
        pair = self.pair
        size = 0

        def count(reading: Reading, tensor: torch.Tensor) -> None:
            nonlocal size
            size += tensor.numel() * tensor.element_size()

        batches = iter(Batches(pair.root, pair.run.source, pair.run.forward))
        together = next(batches)
        with Watch(pair.whole, count):
            pair.run.run(pair.whole, together)
        whole = size
        for batch in batches:
            whole += size
            joined = _joined(together, batch)
            if whole > self.memory or joined is None:
                break
            together = joined
        return together

    def _apply(self, reading: Reading, changed: Values, found: Gram | Beside) -> None:
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
            fit = self._fit(lost, position, found, centred=added is not None)
            reconstruction.give_over(original, weight, added, position, lost, fit)
        if self.method == "ridge":
            changed[reading.weight] = weight

    def _fit(self, lost: Lost, position: int, found: Gram | Beside, centred: bool) -> Fit:
        if not isinstance(found, Gram):
            whole, pruned, shorter = found
            features = shorter.blocks[position].features
            return reconstruction.beside(whole, pruned, lost, features, self.strength, centred)
        if self.method == "bias":
            return reconstruction.mean_only(found, lost)
        return reconstruction.ridge(found, lost, self.strength, centred)

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
            if reading in done or reading in postponed:
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

    def _name_unseen(self, watch: Watch) -> None:
        """Note the weights that must be factors of a product, and were seen in none."""
        seen = {reading.weight for reading in self._seen}
        for name, axes in self.pair.axes.items():
            tensor = self.pair.local.tensors[name]
            names = self.pair.local.names[id(tensor)]
            if (
                isinstance(tensor, nn.Parameter)
                and tensor.dim() > 1
                and not seen & set(names)
                and any(axis is not None for axis in axes[1:])
                and names[0] == name
                and not watch.otherwise.get(name, set()) & SUMMANDS
            ):
                self.skipped[name] = "no product with it was seen (it is computed or cast before)"


def _joined(first: Any, second: Any) -> Any:
    """Return two batches as one along the first axis, or ``None`` where they do not fit together."""
    ours, form = tree_flatten(first)
    others, other_form = tree_flatten(second)
    if form != other_form:
        return None
    leaves = []
    for x, y in zip(ours, others, strict=True):
        if not isinstance(x, torch.Tensor) or not isinstance(y, torch.Tensor):
            if x is not y and x != y:
                return None
            leaves.append(x)
        elif x.dim() and x.shape[1:] == y.shape[1:] and x.dtype == y.dtype:
            leaves.append(torch.cat([x, y]))
        else:
            return None
    return tree_unflatten(leaves, form)
