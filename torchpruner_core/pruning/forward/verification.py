"""``set_cut(..., verify=True)``: the pruned model against the masked one, on values.

Shapes can agree where values do not. So the masked model is run before anything is changed, on the
inputs given and on a second, random batch of the same shapes, since one batch may happen to hide
what another shows; the pruned model must give the same on both, or the cut is taken back.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from torchpruner_core.cut_result import CutResult, TensorSpec
from torchpruner_core.errors import VerificationError
from torchpruner_core.onnx_pruning.verification import ROUNDING, TOLERANCE, Comparison
from torchpruner_core.pruning.forward.boundaries import (
    cut_inputs,
    flatten_outputs,
    less_cut_outputs,
)
from torchpruner_core.pruning.forward.comparison import (
    MaskedOnnx,
    arguments,
    copied,
    difference,
    run,
)
from torchpruner_core.pruning.tensors import slices
from torchpruner_core.pruning.tensors.targets import LocalModel

NUDGE = 1e-6
"""A relative change of the inputs: what it moves is what rounding may move as well."""

MOST_NOISE = 1e-2
"""No more than this is ever put down to rounding."""


@dataclass
class _Batch:
    name: str
    inputs: Any
    original: list[torch.Tensor]
    masked: list[torch.Tensor]
    noise: float = 0.0


class Verification:
    """The masked model's outputs, taken before the cut, to hold the pruned model against.

    ``inputs`` replaces the inputs whose shapes the cut names. Raises :class:`VerificationError`,
    before anything is changed, where there is nothing to compare: no inputs, no weights, outputs
    without tensors, or no masked reference.
    """

    def __init__(self, root: nn.Module, cut: CutResult, inputs: Any = None) -> None:
        self.cut = cut
        if any(tensor.is_meta for tensor in [*root.parameters(), *root.buffers()]):
            raise VerificationError(
                "nothing can be verified: the model's weights are on the meta device; load them first"
            )
        subject = copied(root).eval()
        first = inputs if inputs is not None else _from_shapes(subject, cut)
        with torch.no_grad():
            original = _run(subject, first)
            if not original:
                raise VerificationError(
                    "nothing can be verified: the model returns no tensors on these inputs"
                )
            name = "the inputs given" if inputs is not None else "a random batch"
            self._batches = [_Batch(name, first, original, [])]
            second = _another(first)
            with contextlib.suppress(VerificationError):  # values that only the caller can know
                self._batches.append(
                    _Batch("a second random batch", second, _run(subject, second), [])
                )
            reference = self._reference(subject, first)
            for batch in self._batches:
                batch.masked = reference(batch.inputs)
                nudged = reference(tree_map(_nudged, batch.inputs))
                if [x.shape for x in nudged] == [x.shape for x in batch.masked]:
                    batch.noise = min(difference(batch.masked, nudged)[1], MOST_NOISE)

    def _reference(self, subject: nn.Module, first: Any) -> Callable[[Any], list[torch.Tensor]]:
        """Return what runs the masked model; ``subject`` is masked for that, where it can be."""
        if self.cut.renormalises:
            try:
                masked = MaskedOnnx(subject, self.cut, first)
                masked.run(first)
                for batch in self._batches[1:]:
                    masked.check_that_it_holds(batch.inputs, batch.original)
                return masked.run
            except Exception as error:
                raise VerificationError(
                    "nothing can be verified: the cut changes the statistics of "
                    f"{self.cut.renormalises[0]}, so the reference is the masked ONNX model, and that "
                    f"cannot be had here ({type(error).__name__}: {str(error)[:200]})",
                    operators=list(self.cut.renormalises),
                ) from error
        for target in LocalModel(subject).find(self.cut):
            slices.set_zero_tensor(target.tensor, target.axes)
        return functools.partial(_run, subject)

    def check(self, pruned: nn.Module) -> tuple[Comparison, ...]:
        """Run the pruned model (a copy, in eval mode) and return how it compares.

        Raises :class:`VerificationError` with the numbers where it differs or does not run.
        """
        subject = copied(pruned).eval()
        found = []
        for batch in self._batches:
            expected = less_cut_outputs(self.cut, batch.masked)
            original = less_cut_outputs(self.cut, batch.original)
            try:
                with torch.no_grad():
                    args, kwargs = cut_inputs(self.cut, *arguments(batch.inputs))
                    received = run(subject, args, kwargs, seed=0)
            except Exception as error:
                raise VerificationError(
                    f"the pruned model does not run on {batch.name} ({type(error).__name__}: "
                    f"{str(error)[:300]}); the model was put back",
                    batch=batch.name,
                ) from error
            if [x.shape for x in expected] != [x.shape for x in received]:
                raise VerificationError(
                    f"the pruned model returns {_shapes(received)} on {batch.name}, and the masked one "
                    f"{_shapes(expected)}; the model was put back",
                    batch=batch.name,
                    expected=[list(x.shape) for x in expected],
                    received=[list(x.shape) for x in received],
                )
            expected = [x.to(y.device) for x, y in zip(expected, received, strict=True)]
            _, relative = difference(expected, received)
            _, effect = difference(
                expected, [x.to(y) for x, y in zip(original, expected, strict=True)]
            )
            tolerance = max(_tolerance(received), batch.noise)
            found.append(Comparison(batch.name, relative, effect, tolerance))
        for each in found:
            if not each.difference <= each.tolerance:
                raise VerificationError(
                    f"the pruned model does not give what the masked one gives: {'; '.join(map(str, found))}"
                    ". The model was put back; use the pruned ONNX model, or report the network",
                    batch=each.batch,
                    expected=each.tolerance,
                    received=each.difference,
                    effect=each.effect,
                )
        return tuple(found)


def _run(subject: nn.Module, inputs: Any) -> list[torch.Tensor]:
    try:
        return run(subject, *arguments(inputs), seed=0)
    except Exception as error:
        raise VerificationError(
            "nothing can be verified: the model itself does not run on these inputs "
            f"({type(error).__name__}: {str(error)[:300]}): give others, "
            "set_cut(model, result, verify=True, inputs=...)"
        ) from error


def _from_shapes(model: nn.Module, cut: CutResult) -> Any:
    """Return a random batch of the shapes for which the cut was made."""
    if not cut.inputs:
        raise VerificationError(
            "nothing can be verified: the cut does not say what inputs the model takes; give some, "
            "set_cut(model, result, verify=True, inputs=...)"
        )
    device = next((t.device for t in [*model.parameters(), *model.buffers()]), None)
    tensors = [_random(spec).to(device) for spec in cut.inputs]
    names = [spec.name for spec in cut.inputs]
    if all(name in inspect.signature(model.forward).parameters for name in names):
        return dict(zip(names, tensors, strict=True))
    return tuple(tensors)


def _random(spec: TensorSpec) -> torch.Tensor:
    """Return noise; zeros and ones where integers are asked, which may be indices."""
    generator = torch.Generator().manual_seed(0)
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if spec.value is not None:
        return torch.tensor(spec.value, dtype=dtype).reshape(spec.shape)
    if dtype == torch.bool:
        return torch.ones(spec.shape, dtype=dtype)
    if not dtype.is_floating_point and not dtype.is_complex:
        return torch.randint(0, 2, spec.shape, generator=generator).to(dtype)
    return torch.randn(spec.shape, generator=generator).to(dtype)


def _another(inputs: Any) -> Any:
    """Return other values of the same shapes, spread as the given ones; integers in another order."""
    generator = torch.Generator().manual_seed(1)

    def other(value: Any) -> Any:
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            return value
        value = torch.as_tensor(value)
        if not value.is_floating_point() or value.numel() == 0:
            order = torch.randperm(value.numel(), generator=generator).to(value.device)
            return value.reshape(-1)[order].reshape(value.shape)
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float32).to(value)
        spread = value.std(correction=0) if value.numel() > 1 else value.abs().sum()
        return (noise * torch.where(spread > 0, spread, torch.ones_like(spread))) + value.mean()

    return tree_map(other, inputs)


def _nudged(value: Any) -> Any:
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value * (1 + NUDGE) if is_float else value


def _tolerance(outputs: list[torch.Tensor]) -> float:
    """Return what rounding may do to the coarsest of the outputs' dtypes."""
    kinds = {x.dtype for x in outputs if x.is_floating_point()}
    return max([TOLERANCE, *(ROUNDING * torch.finfo(kind).eps for kind in kinds)])


def _shapes(outputs: list[torch.Tensor]) -> str:
    return ", ".join(str(tuple(x.shape)) for x in flatten_outputs(outputs)) or "nothing"
