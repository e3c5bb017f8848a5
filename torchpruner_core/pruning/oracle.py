"""Is a cut right? Nothing the engine says is believed here: the networks are run.

The method is that of pruning by masking: a network whose removed slices are zero must give what the
shortened network gives. Batch norms are filled with random statistics first, since those of a new
network (weight 1, bias 0, mean 0, variance 1) hide most mistakes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from torchpruner_core.cut_dict import Cut, read_module_cut
from torchpruner_core.errors import ReplayError
from torchpruner_core.exporting.unwrapping import unwrap
from torchpruner_core.pruning.cut import recovery_cut, set_cut
from torchpruner_core.pruning.forward.boundaries import cut_inputs, less_cut_outputs
from torchpruner_core.pruning.forward.comparison import (
    MaskedOnnx,
    arguments,
    copied,
    difference,
    run,
)
from torchpruner_core.pruning.tensors.journal import STORES
from torchpruner_core.pruning.tensors.targets import own_tensors
from torchpruner_core.pruning.zero import set_zero

PLAIN = (bool, int, float, str, tuple, list, dict, type(None))
"""Types of attributes that can be compared."""

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class VerifyReport:
    """What running both networks showed.

    ``equal`` is ``None`` where the outputs could not be compared: the cut renormalises and no
    reference that leaves the removed slices out of the statistics was to be had. Differences are
    over all outputs; the relative one is over the reference's largest value. ``effect`` is the same
    relative difference between the reference and the network as it was: where it is not above the
    tolerance, the outputs hardly depend on what was removed, and equality proves little.
    """

    equal: bool | None
    shapes_match: bool
    restored: bool
    max_abs_difference: float
    max_rel_difference: float
    effect: float
    tolerance: float
    reference: str
    output_shapes: Shapes
    pruned_output_shapes: Shapes
    renormalises: tuple[str, ...] = ()
    touches_outputs: tuple[str, ...] = ()
    changed_by_recovery: tuple[str, ...] = ()
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return self.shapes_match and self.restored and self.equal is not False

    def __str__(self) -> str:
        verdict = {True: "equal", False: "NOT EQUAL", None: "not compared"}[self.equal]
        lines = [
            f"{verdict}: largest difference {self.max_abs_difference:.3g}, relative "
            f"{self.max_rel_difference:.3g} (tolerance {self.tolerance:g}), against the {self.reference}",
            f"masking moved the outputs by {self.effect:.3g}, relative" + self._judgement(),
            "outputs "
            + ", ".join(map(str, self.output_shapes))
            + " -> "
            + ", ".join(map(str, self.pruned_output_shapes))
            + ("" if self.shapes_match else "  NOT AS THE CUT SAYS"),
            "recovery: bit for bit"
            if self.restored
            else f"recovery: DIFFERENT in {', '.join(self.changed_by_recovery[:5])}",
        ]
        if self.renormalises:
            lines.append(f"statistics over fewer slices: {', '.join(self.renormalises)}")
        if self.reason:
            lines.append(self.reason)
        return "\n".join(lines)

    def _judgement(self) -> str:
        if self.effect > self.tolerance:
            return ""
        if self.touches_outputs:
            return (
                f": the cut removes slices of {', '.join(self.touches_outputs)} itself, and what is "
                "left of the outputs need not depend on them"
            )
        return ": too little to prove much; try other inputs"


def verify_cut(
    model: nn.Module,
    result: Cut,
    inputs: Any,
    *,
    tolerance: float = 1e-4,
    seed: int = 0,
    correct_forward: bool = False,
) -> VerifyReport:
    """Prune a copy of ``model``, mask another, and compare their outputs.

    ``inputs`` is a tensor, a tuple of arguments, or a dict of keyword arguments. The model is not
    touched. Raises what :func:`set_cut` raises where the cut cannot be replayed, and
    :class:`ReplayError` where the model itself does not run on these inputs.
    """
    cut = read_module_cut(result)
    args, kwargs = arguments(inputs)
    subject = copied(unwrap(model)).eval()
    randomise_norms(subject, seed)
    pruned = copied(subject)
    before = _everything(pruned)
    reason = ""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        pruned, context = set_cut(pruned, cut, inputs=inputs, correct_forward=correct_forward)
        untouched = _everything(subject)
        original = _run_original(subject, args, kwargs, seed)
        by_running = set(_changed(untouched, _everything(subject)))  # hooks, counters, caches
        by_running |= {name.removesuffix(".id") for name in by_running}
        received, failure = _run_pruned(pruned, cut_inputs(cut, args, kwargs), seed)
        reference, name = None, "network with the slices at zero"
        if cut.renormalises:
            name = "masked ONNX model"
            try:
                reference = MaskedOnnx(subject, cut, inputs).run(inputs)
            except Exception as error:
                name = "nothing"
                reason = f"no masked reference: {type(error).__name__}: {str(error)[:200]}"
        else:
            reference = run(set_zero(copied(subject), cut)[0], args, kwargs, seed)
        expected = None if reference is None else less_cut_outputs(cut, reference)
    wanted = [tuple(x.shape) for x in less_cut_outputs(cut, original)]
    shapes_match = not failure and wanted == [tuple(x.shape) for x in received]
    absolute, relative, effect = float("nan"), float("nan"), float("nan")
    equal: bool | None = None
    reason = failure or reason
    if shapes_match and not original:
        reason = "the model returns no tensors to compare: let it return some, or a dict of them"
    elif expected is not None and shapes_match:
        absolute, relative = difference(expected, received)
        effect = difference(expected, less_cut_outputs(cut, original))[1]
        equal = relative <= tolerance
    elif not shapes_match:
        equal = False
    recovery_cut(pruned, cut, context)
    changed = [n for n in _changed(before, _everything(pruned)) if n not in by_running]
    return VerifyReport(
        equal=equal,
        shapes_match=shapes_match,
        restored=not changed,
        max_abs_difference=absolute,
        max_rel_difference=relative,
        effect=effect,
        tolerance=tolerance,
        reference=name,
        output_shapes=tuple(tuple(x.shape) for x in original),
        pruned_output_shapes=tuple(tuple(x.shape) for x in received),
        renormalises=tuple(cut.renormalises),
        touches_outputs=tuple(cut.touches_outputs),
        changed_by_recovery=tuple(changed),
        reason=reason,
    )


def randomise_norms(model: nn.Module, seed: int = 0) -> nn.Module:
    """Fill every batch and instance norm with random affine values and running statistics, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if not hasattr(module, "running_mean") or not hasattr(module, "running_var"):
                continue
            for name, low, high in (
                ("weight", 0.5, 1.5),
                ("bias", -0.5, 0.5),
                ("running_mean", -0.5, 0.5),
                ("running_var", 0.5, 1.5),
            ):
                tensor = getattr(module, name, None)
                if isinstance(tensor, torch.Tensor) and not tensor.is_meta:
                    values = torch.rand(tensor.shape, generator=generator) * (high - low) + low
                    tensor.detach().copy_(values)
    return model


def _run_original(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], seed: int
) -> list[torch.Tensor]:
    try:
        return run(model, args, kwargs, seed)
    except Exception as error:
        meta = any(
            tensor.is_meta for module in model.modules() for _, tensor in own_tensors(module)
        )
        raise ReplayError(
            "nothing was compared, since the model itself does not run on these inputs "
            f"({type(error).__name__}: {str(error)[:300]}): "
            + (
                "its weights are on the meta device; load them first"
                if meta
                else "check their shapes, dtypes and device"
            )
        ) from error


def _run_pruned(
    model: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]], seed: int
) -> tuple[list[torch.Tensor], str]:
    try:
        return run(model, *call, seed), ""
    except Exception as error:
        return [], f"the pruned network does not run: {type(error).__name__}: {str(error)[:300]}"


def _everything(model: nn.Module) -> dict[str, Any]:
    """Return every tensor, gradient and attribute of a model, by name."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        found[f"{path}.__class__"] = type(module)
        for attribute, tensor in own_tensors(module):
            found[f"{path}.{attribute}"] = (tensor.detach().clone(), tensor.stride())
            found[f"{path}.{attribute}.id"] = id(tensor)
            if tensor.is_leaf and tensor.grad is not None:
                found[f"{path}.{attribute}.grad"] = (tensor.grad.clone(), ())
        for attribute, value in module.__dict__.items():
            if attribute not in STORES and isinstance(value, PLAIN):
                found[f"{path}.{attribute}"] = copy.copy(value)
    config: Any = getattr(model, "config", None)
    if hasattr(config, "to_dict"):
        found["config"] = config.to_dict()
    return found


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    names = list(before.keys() ^ after.keys())
    for name in before.keys() & after.keys():
        x, y = before[name], after[name]
        if isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], torch.Tensor):
            same = x[1] == y[1] and x[0].shape == y[0].shape and _bits(x[0]) == _bits(y[0])
        else:
            try:
                same = bool(x == y)
            except (RuntimeError, ValueError):
                same = x is y  # containers of tensors
        if not same:
            names.append(name)
    return sorted(names)


def _bits(tensor: torch.Tensor) -> bytes:
    if tensor.is_meta:
        return b""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
