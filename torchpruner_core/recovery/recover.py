"""``recover``: repair a cut from unlabelled batches, without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from torchpruner_core.calibration.batches import Batches, Forward, Progress, Source
from torchpruner_core.cut_dict import fingerprint, read_cut
from torchpruner_core.exporting.unwrapping import unwrap
from torchpruner_core.pruning.context import context_in_force
from torchpruner_core.pruning.tensors.targets import in_mode_of_model
from torchpruner_core.recovery import batchnorm as norms
from torchpruner_core.recovery.errors import RecoveryError
from torchpruner_core.recovery.fitting import Fitting
from torchpruner_core.recovery.pair import Pair
from torchpruner_core.recovery.repairs import Repairs, repairing

METHODS = ("ridge", "bias", "none")


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
    sequential: bool = True,
    forward: Forward | None = None,
    progress: Progress | None = None,
    memory: int = 2 << 30,
) -> Recovery:
    """Repair a model after ``set_cut(model, plan.result)``, in place, without labels and without training.

    ``plan`` is a plan or a ``CutResult`` that is in force on ``model``; ``batches`` a list, a
    ``DataLoader`` or a function that returns one, read several times; a batch is a tensor, a tuple or
    list of arguments, or a dict of keywords, and ``forward(model, batch)`` says otherwise (``lambda
    model, batch: model(batch[0])`` where it holds labels).

    - ``method="ridge"``: every weight is fitted, in the order of the forward, so that it gives what it
      gave in the original from what it reads by now: least squares from the pruned model's inputs to the
      original's outputs, over the patches that a kernel sees (He et al. 2017,
      https://arxiv.org/abs/1707.06168), on as many of the first batches as ``memory`` holds at a time.
      A product that goes into a sum is then fitted to the sum, so that it mends the other summand's
      error too. ``strength`` is the penalty as a share of the inputs' mean variance where there are
      eight rows a feature, and less in proportion where there are more. Weights used more than once, as
      those of recurrent layers, and all with ``sequential=False``, take over for the features they lost:
      ``W_kept += W_removed A``, ``b += W_removed c``, ``A`` from one Gram matrix for each tensor that is
      read in the original (CORP, https://arxiv.org/abs/2602.05243, and Kwon et al. 2022,
      https://arxiv.org/abs/2204.09656).
    - ``method="bias"``: the removed features' means go into the bias (FLAP,
      https://arxiv.org/abs/2312.11983). Meant for ``tp.importance.fluctuation``. At a convolution's
      padded border it is not exact.
    - ``method="none"``: neither.

    ``batchnorm`` estimates running statistics anew after either (EagleEye).

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
    for name, number in (("strength", strength), ("memory", memory)):
        if not isinstance(number, int | float) or not 0 < number < float("inf"):
            raise RecoveryError(
                f"{name} is a positive number, not {number!r}", received=repr(number)
            )
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
    with repairing(root, context) as repairs:
        pair = Pair(root, cut, context, run)
        fitting = Fitting(pair, method, strength, memory)
        return _repaired(pair, fitting, repairs, batchnorm, sequential)


def _repaired(
    pair: Pair, fitting: Fitting, repairs: Repairs, batchnorm: bool, sequential: bool
) -> Recovery:
    """Do step after step, each kept only where the outputs come no further from the original's."""
    batchnorm = batchnorm and bool(norms.batch_norms(pair.root))
    pair.run.passes = (fitting.method != "none") + batchnorm
    error = before = pair.error()
    written: dict[str, None] = {}
    taken_back = []

    def keep(step: str, names: Mapping[str, Any], steps: int = 1) -> bool:
        nonlocal error
        after = pair.error()
        if after <= error:
            error = after
            written.update(dict.fromkeys(names))
            return True
        taken_back.append(step)
        for _ in range(steps):
            repairs.take_back()
        return False

    def at_once() -> None:
        values = pair.shortened(fitting.at_once())
        repairs.write(values)
        keep(fitting.method, values)

    if sequential and fitting.method == "ridge":
        if fitting.look():
            pair.run.passes += 1
            at_once()
        names: dict[str, None] = {}
        steps = 0

        def write(values: Mapping[str, torch.Tensor]) -> None:
            nonlocal steps
            repairs.write(values)
            names.update(dict.fromkeys(values))
            steps += 1

        fitting.in_turn(write)
        if not keep("sequential", names, steps):
            pair.run.passes += 1
            fitting.forget()
            at_once()
    elif fitting.method != "none":
        at_once()
    statistics: dict[str, Any] = {}
    if batchnorm:
        statistics = norms.estimate(pair.root, pair.run_pruned)
        repairs.write(statistics)
        keep("batchnorm", statistics)
    weights = [name for name in written if name not in statistics]
    return Recovery(
        method=fitting.method,
        error_before=before,
        error_after=error,
        repaired=tuple(name for name in weights if name not in fitting.biases),
        biases=tuple(name for name in weights if name in fitting.biases),
        statistics=tuple(name for name in written if name in statistics),
        skipped=dict(fitting.skipped),
        taken_back=tuple(taken_back),
    )
