"""``recover``: repair a cut from unlabelled batches, without training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from torchpruner_core.calibration.as_found import as_found
from torchpruner_core.calibration.batches import Batches, Forward, Progress, Source, call
from torchpruner_core.calibration.errors import NotFiniteError
from torchpruner_core.calibration.moments import Accumulator, Observer, observe
from torchpruner_core.calibration.readings import Reading, Watch
from torchpruner_core.cut_dict import fingerprint, read_cut
from torchpruner_core.cut_result import CutResult
from torchpruner_core.exporting.unwrapping import unwrap
from torchpruner_core.pruning.context import CutContext, Repair, context_in_force
from torchpruner_core.pruning.cut import recovery_cut
from torchpruner_core.pruning.forward.boundaries import (
    cut_inputs,
    flatten_outputs,
    less_cut_outputs,
)
from torchpruner_core.pruning.forward.comparison import copied
from torchpruner_core.pruning.tensors import slices
from torchpruner_core.pruning.tensors.journal import Journal
from torchpruner_core.pruning.tensors.targets import LocalModel, in_mode_of_model
from torchpruner_core.recovery import batchnorm as norms
from torchpruner_core.recovery import reconstruction
from torchpruner_core.recovery.errors import RecoveryError

METHODS = ("ridge", "bias", "none")

CHECKED = 4
"""How many batches the outputs before and after are compared on."""


@dataclass(frozen=True)
class Recovery:
    """What was repaired, and how near the outputs are to those before the cut.

    Errors are root mean squares of the difference over that of the original's outputs, on the first batches:
    0 is the same output, 1 as wrong as an output of zeros. ``skipped`` maps the weights that lost inputs
    and were left as they are to the reason; ``taken_back`` names the steps that made the outputs worse
    and were undone.
    """

    method: str
    error_before: float
    error_after: float
    repaired: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    taken_back: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"relative error of the outputs {self.error_before:.3g} -> {self.error_after:.3g} "
            f"({self.method})",
            f"{len(self.repaired)} weights and {len(self.biases)} biases repaired, "
            f"{len(self.statistics) // 2} batch norms estimated anew",
        ]
        lines += [f"taken back, since the outputs got worse: {step}" for step in self.taken_back]
        lines += [f"left as it is: {name}, {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


@in_mode_of_model
def recover(
    model: nn.Module,
    plan: Any,
    batches: Source,
    *,
    method: str = "ridge",
    batchnorm: bool = True,
    strength: float = 1e-2,
    forward: Forward | None = None,
    progress: Progress | None = None,
    memory: int = 2 << 30,
) -> Recovery:
    """Repair a model after ``set_cut(model, plan.result)``, in place, without labels and without training.

    ``plan`` is a plan or a ``CutResult`` that is in force on ``model``; ``batches`` a list, a
    ``DataLoader`` or a function that returns one, read several times; a batch is a tensor, a tuple or
    list of arguments, or a dict of keywords, and ``forward(model, batch)`` says otherwise (``lambda
    model, batch: model(batch[0])`` where it holds labels).

    - ``method="ridge"``: every weight that lost inputs is fitted so that it gives what it gave in the
    original: ``W_kept += W_removed A``, ``b += W_removed c``, ``A`` by ridge regression from one Gram
    matrix for each tensor that is read; ``strength`` is the penalty as a share of the mean variance.
    Source: CORP, https://arxiv.org/abs/2602.05243, and Kwon et al. 2022,
    https://arxiv.org/abs/2204.09656. - ``method="bias"``: the removed features' means go into the bias
    (FLAP, https://arxiv.org/abs/2312.11983). Meant for ``tp.importance.fluctuation``. At a convolution's
    padded border it is not exact. - ``method="none"``: neither. ``batchnorm`` estimates running
    statistics anew after either (EagleEye).

    A step after which the outputs on the first batches are further from the original's is taken back.
    ``progress(done, total)`` is told after each batch and stops everything by returning ``False``. Runs
    on the model's device with a copy of the whole model beside it, and Gram matrices of ``memory`` bytes
    at a time (more passes where they need more).

    Returns what was done. ``recovery_cut`` afterwards gives the original back bit for bit, as far as
    nothing was trained since. Raises ``RecoveryError`` where the cut is not in force, ``BatchError``,
    ``NotFiniteError``, ``CalibrationCancelledError``; then, and when interrupted, the model is as it was.
    """
    if method not in METHODS:
        raise RecoveryError(
            f"method is one of {', '.join(METHODS)}, not {method!r}", received=repr(method)
        )
    if not strength > 0 or not memory > 0:
        raise RecoveryError("strength and memory are positive numbers")
    root = unwrap(model)
    cut = read_cut(getattr(plan, "result", plan))
    context = context_in_force(root, fingerprint(cut))
    if context is None:
        raise RecoveryError(
            "this cut is not in force on this model: call model, context = tp.set_cut(model, "
            "plan.result) first, "
            "and recover the very same model (not a copy of it)"
        )
    run = Batches(root, batches, forward, progress)
    if not run.can_repeat:
        raise RecoveryError(
            "the batches are read more than once, and an iterator is empty after the first time: "
            "give a list, a "
            "DataLoader, or a function that returns a new iterator (lambda: (x for x, _ in loader))"
        )
    with _repairing(root, context) as repairs:
        return _Repair(root, cut, context, run, repairs).do(method, batchnorm, strength, memory)


class _Repairs:
    """Tensors of the pruned model that get other values, each step of which can be taken back."""

    def __init__(self, root: nn.Module) -> None:
        self.local = LocalModel(root)
        self.before: dict[str, torch.Tensor] = {}
        self._steps: list[tuple[Journal, list[str]]] = []

    def write(self, values: Mapping[str, torch.Tensor]) -> None:
        """Overwrite tensors by name, as one step."""
        journal = Journal()
        fresh: list[str] = []
        self._steps.append((journal, fresh))
        with torch.no_grad():
            for name, new in values.items():
                tensor = self.local.tensors[name]
                journal.overwrite(tensor)
                if name not in self.before:
                    self.before[name] = tensor.detach().clone()
                    fresh.append(name)
                tensor.detach().copy_(new)

    def take_back(self) -> None:
        """Undo the last step."""
        journal, fresh = self._steps.pop()
        journal.rollback()
        for name in fresh:
            del self.before[name]

    def take_all_back(self) -> None:
        while self._steps:
            self.take_back()


@contextmanager
def _repairing(root: nn.Module, context: CutContext) -> Iterator[_Repairs]:
    """Give the repairs made inside to the cut's context, or take them back if anything fails."""
    repairs = _Repairs(root)
    try:
        yield repairs
        records = {
            name: Repair.of(repairs.local.tensors[name], before, context.repairs.get(name))
            for name, before in repairs.before.items()
        }
    except BaseException:
        repairs.take_all_back()
        raise
    context.repairs.update(records)


class _Repair:
    """One call of :func:`recover`."""

    def __init__(
        self,
        root: nn.Module,
        cut: CutResult,
        context: CutContext,
        run: Batches,
        repairs: _Repairs,
    ) -> None:
        self.root, self.cut, self.run, self.repairs = root, cut, run, repairs
        self.whole = recovery_cut(copied(root), cut, context)
        self.local = LocalModel(self.whole)
        self.axes = {
            name: slices.read_axes(cut.terminal[name], record.before, name)
            for name, record in context.tensors.items()
        }
        for target_names in self.local.names.values():
            for name in target_names:
                known = next((self.axes[n] for n in target_names if n in self.axes), None)
                if known is not None:
                    self.axes.setdefault(name, known)
        self.skipped: dict[str, str] = {}

    def do(self, method: str, batchnorm: bool, strength: float, memory: int) -> Recovery:
        batchnorm = batchnorm and bool(norms.batch_norms(self.root))
        self.run.passes = (method != "none") + batchnorm
        error = before = self._error()
        weights: dict[str, torch.Tensor] = {}
        statistics: dict[str, torch.Tensor] = {}
        taken_back = []
        if method != "none":
            weights = self._cut(self._weights(method, strength, memory))
            self.repairs.write(weights)
            after = self._error()
            if after > error:
                self.repairs.take_back()
                taken_back.append(method)
                weights = {}
            error = min(error, after)
        if batchnorm:
            statistics = norms.estimate(self.root, self._run_all)
            self.repairs.write(statistics)
            after = self._error()
            if after > error:
                self.repairs.take_back()
                taken_back.append("batchnorm")
                statistics = {}
            error = min(error, after)
        return Recovery(
            method=method,
            error_before=before,
            error_after=error,
            repaired=tuple(name for name in weights if name not in self._biases),
            biases=tuple(name for name in weights if name in self._biases),
            statistics=tuple(statistics),
            skipped=dict(self.skipped),
            taken_back=tuple(taken_back),
        )

    def _run_all(self) -> None:
        for batch in self.run:
            self._pruned(batch)

    def _pruned(self, batch: Any) -> Any:
        """Run the pruned model, whose inputs may be shorter."""
        if not self.cut.touches_inputs or self.run.forward is not call:
            return self.run.run(self.root, batch)
        args, kwargs = (), {}
        if isinstance(batch, Mapping):
            kwargs = dict(batch)
        else:
            args = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
        args, kwargs = cut_inputs(self.cut, args, kwargs)
        return self.run.run(self.root, kwargs or args)

    def _error(self) -> float:
        """Return how far the pruned model's outputs are from the original's, relative to these."""
        gap = size = 0.0
        quiet = Batches(self.root, self.run.source, self.run.forward)
        with as_found(self.root), as_found(self.whole), torch.no_grad():
            for number, batch in enumerate(quiet):
                if number == CHECKED:
                    break
                expected = less_cut_outputs(self.cut, flatten_outputs(quiet.run(self.whole, batch)))
                received = flatten_outputs(self._pruned(batch))
                for x, y in zip(expected, received, strict=True):
                    if x.is_floating_point() and x.shape == y.shape:
                        wanted, found = x.double(), y.double()
                        usable = torch.isfinite(wanted)
                        gap += float((wanted - found)[usable].square().sum())
                        size += float(wanted[usable].square().sum())
        if gap != gap or gap == float("inf"):
            raise NotFiniteError(
                "the pruned model's outputs hold NaN or infinity on these batches: look at the "
                "batches, or run it "
                "in float32"
            )
        return float((gap / size) ** 0.5) if size else 0.0

    def _weights(self, method: str, strength: float, memory: int) -> dict[str, torch.Tensor]:
        """Return new values of whole weights and biases of the original, by name."""
        changed: dict[str, torch.Tensor] = {}
        self._biases: set[str] = set()
        done: set[Reading] = set()
        while True:
            grams, watch, postponed = self._observe(done, memory)
            for reading, gram in grams.items():
                done.add(reading)
                reason = self._reason(reading, watch, grams)
                if reason is None:
                    reason = self._repair(reading, gram, method, strength, changed)
                if reason is not None:
                    self.skipped[reading.weight] = reason
            if not postponed:
                break
            self.run.passes += 1
        seen = {reading.weight for reading in self._readings}
        for name, axes in self.axes.items():
            tensor = self.local.tensors[name]
            if (
                isinstance(tensor, nn.Parameter)
                and tensor.dim() > 1
                and not seen & set(self.local.names[id(tensor)])
                and any(axis is not None for axis in axes[1:])
                and self.local.names[id(tensor)][0] == name
            ):
                self.skipped[name] = "no product with it was seen (it is computed or cast before)"
        return changed

    def _observe(
        self, done: set[Reading], memory: int
    ) -> tuple[dict[Reading, reconstruction.Gram], Watch, bool]:
        self._readings: set[Reading] = getattr(self, "_readings", set())
        postponed: set[Reading] = set()
        used = 0

        def start(reading: Reading) -> Accumulator | None:
            nonlocal used
            self._readings.add(reading)
            if reading in done or reading in postponed:
                return None
            axes = self.axes.get(reading.weight)
            if axes is None:
                return None
            lost = reconstruction.lost_features(reading, self.local.tensors[reading.weight], axes)
            if not lost:
                return None
            gram = reconstruction.gram_of(lost, self.run.device)
            size = reconstruction.gram_bytes(gram, reading)
            if used and used + size > memory:
                postponed.add(reading)
                return None
            used += size
            return gram

        observer = Observer(start)
        with as_found(self.whole):
            watch = observe(self.whole, self.run, self.run, observer)
        found = {r: g for r, g in observer.found.items() if isinstance(g, reconstruction.Gram)}
        return found, watch, bool(postponed)

    def _reason(self, reading: Reading, watch: Watch, readings: Iterable[Reading]) -> str | None:
        """Return why a weight cannot take over for its removed inputs, if it cannot."""
        tensor = self.local.tensors[reading.weight]
        names = self.local.names[id(tensor)]
        if len(names) > 1:
            return f"it is {names[1]} too, which would change along"
        others = watch.otherwise.get(reading.weight)
        if others:
            return f"{sorted(others)[0]} reads it too, and would change along"
        alike = [r for r in self._readings if r.weight == reading.weight]
        if sum(block.elements for r in alike for block in r.blocks) > tensor.numel():
            return "it is read in views that overlap"
        return None

    def _repair(
        self,
        reading: Reading,
        gram: reconstruction.Gram,
        method: str,
        strength: float,
        changed: dict[str, torch.Tensor],
    ) -> str | None:
        bias = self._bias(reading)
        if method == "bias" and bias is None:
            return "it has no bias of its own to put the mean into"
        reconstruction.check_gram(reading, gram)
        original = self.local.tensors[reading.weight].detach()
        weight = changed.get(reading.weight)
        weight = original.clone() if weight is None else weight
        added: torch.Tensor | None = None
        if bias is not None:
            added = changed.get(bias)
            added = self.local.tensors[bias].detach().clone() if added is None else added
        lost = reconstruction.lost_features(
            reading, self.local.tensors[reading.weight], self.axes[reading.weight]
        )
        for each in lost:
            solution: torch.Tensor | None
            if method == "ridge":
                solution, offset = reconstruction.ridge(gram, each, strength, added is not None)
            else:
                solution, offset = reconstruction.mean_only(gram, each)
            position = reading.blocks.index(each.block)
            reconstruction.give_over(weight, added, position, each, solution, offset)
        if method == "ridge":
            changed[reading.weight] = weight
        if bias is not None and added is not None:
            changed[bias] = added
            self._biases.add(bias)
        return None

    def _bias(self, reading: Reading) -> str | None:
        if reading.bias is None:
            return None
        names = self.local.names[id(self.local.tensors[reading.bias])]
        readers = {r.weight for r in self._readings if r.bias == reading.bias}
        return reading.bias if len(names) == 1 and len(readers) == 1 else None

    def _cut(self, changed: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return whole tensors without the slices that the cut takes."""
        return {
            name: slices.cut_data(tensor, self.axes[name])[0] if name in self.axes else tensor
            for name, tensor in changed.items()
        }
