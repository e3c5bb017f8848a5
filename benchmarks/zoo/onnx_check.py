"""A cut on the ONNX model: pruned for real against the masked original, both in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.cut_result import CutResult
from torchpruner_core.onnx_pruning import masked_onnx, prune_onnx

Array = NDArray[Any]
Outputs = dict[str, Array]

TOLERANCE = 1e-4
"""Largest difference allowed in float32, relative to the reference's largest value."""

VISIBLE = 1e-5
"""A cut whose masking moves the output by less than this, relatively, proves nothing; nor does one whose
masking moves it by less than ten times the difference found."""


@dataclass(frozen=True, slots=True)
class OnnxCheck:
    """``masked`` is the reference, less what the cut takes from outputs.

    ``gap`` is how far masking moves the output, ``error`` how far the pruned model is from the
    masked one, ``noise`` (where the error is large) how far rounding moves that one; all relative.
    """

    masked: Outputs
    gap: float
    error: float
    compared: int
    noise: float = 0.0


def run(data: bytes, feeds: Mapping[str, Array], optimised: bool = False) -> Outputs:
    """Run an ONNX model as it is written, or as onnxruntime optimises it."""
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    )
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    wanted = {node.name for node in session.get_inputs()}
    outputs = session.run(None, {name: value for name, value in feeds.items() if name in wanted})
    return dict(zip([node.name for node in session.get_outputs()], outputs, strict=True))


def run_original(data: bytes, feeds: Mapping[str, Array]) -> tuple[Outputs, bool]:
    """Return the outputs of a model and whether it must be optimised to give the same twice.

    Of some models onnxruntime computes other numbers at each run, unless it optimises them.
    """
    first = run(data, feeds)
    if distance(first, run(data, feeds)) <= TOLERANCE:
        return first, False
    return run(data, feeds, optimised=True), True


def check(
    data: bytes,
    cut: CutResult,
    feeds: Mapping[str, Array],
    original: Outputs,
    optimised: bool = False,
) -> OnnxCheck:
    """Prune and mask ``data`` and compare them; raises what the engine or onnxruntime raise."""
    masked_model = masked_onnx(data, cut)
    whole = run(masked_model, feeds, optimised)
    masked = {name: less(cut, name, value) for name, value in whole.items()}
    fed = {name: less(cut, name, value) for name, value in feeds.items()}
    pruned = run(prune_onnx(data, cut), fed, optimised)
    fixed = [spec.name for spec in cut.outputs if -1 not in spec.shape and 0 not in spec.shape]
    gap = distance({n: less(cut, n, original[n]) for n in fixed}, {n: masked[n] for n in fixed})
    error = distance({n: masked[n] for n in fixed}, {n: pruned[n] for n in fixed})
    compared = len(fixed)
    if gap == 0.0 or not fixed:
        # Nothing of a known size depends on the cut: then what is found by data must agree too.
        gap = distance({n: less(cut, n, v) for n, v in original.items()}, masked)
        error = distance(masked, pruned)
        compared = len(masked)
    noise = 0.0
    if error > TOLERANCE:
        nudged = {name: _nudged(value) for name, value in feeds.items()}
        moved = run(masked_model, nudged, optimised)
        again = {name: less(cut, name, v) for name, v in moved.items()}
        names = fixed if compared == len(fixed) else list(masked)
        noise = distance({n: masked[n] for n in names}, {n: again[n] for n in names})
    return OnnxCheck(masked, gap, error, compared, noise)


def _nudged(value: Array) -> Array:
    """Return an input that differs in its last bits: what it moves is the network's rounding noise."""
    return (value * (1 + 1e-6)).astype(value.dtype) if value.dtype.kind == "f" else value


def less(cut: CutResult, name: str, value: Array) -> Array:
    """Return a tensor without what the cut takes from it."""
    for dim, index in enumerate(cut.iner.get(name, [])):
        if index is not None:
            value = np.delete(value, index, axis=dim)
    return value


def distance(reference: Outputs, received: Outputs) -> float:
    """Return the largest difference over all outputs, each relative to its reference's largest value."""
    worst = 0.0
    for name, expected in reference.items():
        got = received[name]
        if expected.shape != got.shape:
            return float("inf")
        if not expected.size:
            continue
        if expected.dtype.kind not in "fc":
            worst = max(worst, float((expected != got).mean()))
            continue
        if not np.array_equal(np.isfinite(expected), np.isfinite(got)):
            return float("inf")
        finite = np.isfinite(expected)
        if finite.any():
            scale = float(np.abs(expected[finite]).max())
            worst = max(
                worst, float(np.abs(expected[finite] - got[finite]).max()) / (scale + 1e-12)
            )
    return worst
