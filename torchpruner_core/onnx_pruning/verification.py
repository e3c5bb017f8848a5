"""Is a pruned ONNX model right? It and the masked one are run on two batches and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core import running
from torchpruner_core.cut_dict import Cut, read_cut
from torchpruner_core.cut_result import CutResult, TensorSpec
from torchpruner_core.errors import GraphError, VerificationError
from torchpruner_core.graph.dtypes import np_dtype
from torchpruner_core.onnx_pruning.masked import masked_onnx

TOLERANCE = 1e-4
"""Largest difference allowed in float32, relative to the reference's largest value."""

ROUNDING = 8
"""So many roundings of a dtype may add up where that is more than ``TOLERANCE``."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Comparison:
    """How far the pruned model is from the masked one on one batch.

    ``difference`` and ``effect`` are relative to the reference's largest value, ``effect`` being how
    far masking moved the outputs: a cut without any proves nothing.
    """

    batch: str
    difference: float
    effect: float
    tolerance: float

    def __str__(self) -> str:
        return (
            f"on {self.batch} it differs by {self.difference:.3g} (tolerance {self.tolerance:.3g}), "
            f"where masking moves the outputs by {self.effect:.3g}"
        )


def verify_onnx(
    data: bytes, pruned: bytes, result: Cut, inputs: Mapping[str, Any] | None = None
) -> tuple[Comparison, ...]:
    """Run ``pruned`` beside ``data`` with the slices of ``result`` masked, and return how they compare.

    ``inputs`` are arrays by name; without them the first batch is random too, in the shapes that
    ``result`` names. Raises :class:`VerificationError` with the numbers where the two differ, or
    where nothing can be compared.
    """
    cut = read_cut(result)
    batches = {
        "the inputs given" if inputs else "a random batch": dict(inputs or _random(cut, 0)),
        "a second random batch": _random(cut, 1),
    }
    masked_model = masked_onnx(data, cut)
    found: list[Comparison] = []
    for name, feeds in batches.items():
        try:
            original = _arrays(running.run(data, feeds), cut)
            masked = _arrays(running.run(masked_model, feeds), cut)
        except GraphError as error:
            if found:
                continue  # values that only the caller can know
            raise VerificationError(
                f"nothing can be verified: the model itself does not run on {name} ({error})"
            ) from error
        kept = {k: _less(cut, k, np.asarray(v)) for k, v in feeds.items()}
        received = _arrays(running.run(pruned, kept), cut)
        expected = {k: _less(cut, k, v) for k, v in masked.items()}
        for output, value in expected.items():
            if received[output].shape != value.shape:
                raise VerificationError(
                    f"the pruned model gives {output} the shape {received[output].shape} on {name}, and "
                    f"the masked one {value.shape}",
                    batch=name,
                    expected=list(value.shape),
                    received=list(received[output].shape),
                )
        effect = _distance(expected, {k: _less(cut, k, v) for k, v in original.items()})
        found.append(Comparison(name, _distance(expected, received), effect, _tolerance(expected)))
    for each in found:
        if not each.difference <= each.tolerance:
            raise VerificationError(
                f"the pruned model does not give what the masked one gives: {'; '.join(map(str, found))}",
                batch=each.batch,
                expected=each.tolerance,
                received=each.difference,
                effect=each.effect,
            )
    return tuple(found)


def _arrays(outputs: Mapping[str, Any], cut: CutResult) -> Arrays:
    """Return outputs under the names that the cut calls them by, the parts of a sequence one by one."""
    called = [spec.name for spec in cut.outputs]
    names = called if len(called) == len(outputs) else list(outputs)
    found: Arrays = {}
    for name, value in zip(names, outputs.values(), strict=True):
        parts = value if isinstance(value, list) else [value]
        for position, part in enumerate(parts):
            if isinstance(part, np.ndarray):
                found[f"{name}[{position}]" if part is not value else name] = part
    return found


def _random(cut: CutResult, seed: int) -> Arrays:
    """Return noise for each input; zeros and ones where integers are asked, which may be indices."""
    if not cut.inputs:
        raise VerificationError(
            "nothing can be verified: the cut does not say what inputs the model takes; give some"
        )
    generator = np.random.default_rng(seed)
    return {spec.name: _values(spec, generator) for spec in cut.inputs}


def _values(spec: TensorSpec, generator: np.random.Generator) -> NDArray[Any]:
    dtype = np_dtype(spec.dtype)
    if spec.value is not None:
        return np.asarray(spec.value, dtype=dtype).reshape(spec.shape)
    shape = [max(size, 1) for size in spec.shape]
    if np.dtype(dtype).kind in "iub":
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


def _less(cut: CutResult, name: str, value: NDArray[Any]) -> NDArray[Any]:
    for axis, index in enumerate(cut.iner.get(name) or cut.terminal.get(name) or ()):
        if index is not None and len(index):
            value = np.delete(value, index, axis=axis)
    return value


def _distance(expected: Arrays, received: Arrays) -> float:
    worst = 0.0
    for name, x in expected.items():
        y = received[name]
        if not x.size or x.shape != y.shape:
            continue
        if x.dtype.kind not in "fc":
            worst = max(worst, float((x != y).mean()))
            continue
        x, y = x.astype(np.float64), y.astype(np.float64)
        finite = np.isfinite(x)
        if not np.array_equal(finite, np.isfinite(y)):
            return float("inf")
        if finite.any():
            scale = max(float(np.abs(x[finite]).max()), 1e-12)
            worst = max(worst, float(np.abs(x[finite] - y[finite]).max()) / scale)
    return worst


def _tolerance(outputs: Arrays) -> float:
    kinds = {x.dtype for x in outputs.values() if x.dtype.kind == "f"}
    return max([TOLERANCE, *(ROUNDING * float(np.finfo(kind).eps) for kind in kinds)])
