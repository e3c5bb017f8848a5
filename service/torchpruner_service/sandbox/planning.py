"""Plans, made beside untrusted weights: scores from them, widths under a budget, measurements."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import CutResult, TensorSpec
from torchpruner_service.problems import InvalidUpload
from torchpruner_service.sandbox.frames import FrameWriter
from torchpruner_service.sandbox.measuring import device_name, has_cuda
from torchpruner_service.sandbox.state_cutting import ROOT, cut_tensors
from torchpruner_service.sandbox.state_reading import StoredTensor, read_state


def make(
    args: Mapping[str, Any],
    inputs: list[TensorSpec],
    cuts: Sequence[CutResult],
    onnx_model: Callable[[], bytes],
    out: FrameWriter,
) -> dict[str, Any]:
    """Send ``{"plan", "frontier"}`` as JSON and return what it costs.

    ``args`` name the files of the solved graph and of the request, and of the model where its weights
    are judged or it is timed. ``onnx_model()`` gives what is timed.
    """
    import torchpruner_core as tp

    request = json.loads(Path(args["request"]).read_text())
    graph = SolvedGraph.from_bytes(Path(args["graph"]).read_bytes())
    scores = None if request["scores"] is None else tp.Scores.from_dict(request["scores"])
    if request["importance"] is not None:
        out.progress("reading weights", 5)
        state = read_state(Path(args["path"]), args["format"], inputs)
        judged = getattr(tp.importance, request["importance"])
        scores = judged(Weights(cut_tensors(state, cuts)), graph)
    runtime = None
    if request["budget"].get("latency") is not None:
        gpu = has_cuda(args["providers"])
        load = os.getloadavg()[0]
        runtime = tp.OnnxRuntime(
            device="GPU" if gpu else "CPU", threads=args["threads"], model=onnx_model()
        )

    def progress(stage: str, fraction: float) -> None:
        named = "measuring" if stage in ("profiling", "measuring") else "planning"
        out.progress(named, 15 + 70 * min(1.0, max(0.0, fraction)))

    made = tp.plan(
        graph,
        tp.Budget(**request["budget"], runtime=runtime),
        scores,
        rules=tp.Rules.from_dict(request["rules"]),
        progress=progress,
    )
    out.progress("planning", 90)
    frontier = [_point(made, fraction) for fraction in request["frontier"]]
    found = {"plan": made.to_dict(), "frontier": frontier}
    if request.get("order"):
        found["order"] = [
            {"axes": order.axes, "index": order.index.tolist()} for order in made.orders()
        ]
    if runtime is not None:
        found["measured_on"] = _measured_on(runtime, load)
    text = json.dumps(found, separators=(",", ":"))
    out.data(text.encode())
    return _costs(made)


def _measured_on(runtime: Any, load: float) -> dict[str, Any]:
    """The machine that a latency was measured on, as stored latencies tell it."""
    import onnxruntime

    provider = "CUDAExecutionProvider" if runtime.device == "GPU" else "CPUExecutionProvider"
    loads = {"before": round(load, 2), "after": round(os.getloadavg()[0], 2)}
    return {
        "device": device_name(provider),
        "provider": provider,
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "threads": runtime.threads,
        "load": {**loads, "cpus": os.cpu_count() or 1},
    }


def _point(plan: Any, fraction: float) -> dict[str, Any]:
    """What a plan for another share comes to; ``widths``, and what bounds them, are in the order of the
    plan's groups."""
    from torchpruner_core.errors import PlanError

    try:
        (other,) = plan.frontier([fraction])
    except PlanError as error:
        return {"fraction": fraction, "problem": error.detail}
    return {
        "fraction": fraction,
        **_costs(other),
        "widths": [group.after for group in other.groups],
        "bounds": [group.bound for group in other.groups],
    }


def _costs(plan: Any) -> dict[str, Any]:
    groups = [group for group in plan.groups if group.score_before]
    kept = sum(group.score_after or 0.0 for group in groups)
    whole = sum(group.score_before for group in groups)
    return {
        "costs": {
            name: {"before": cost.before, "after": cost.after, "limit": cost.limit}
            for name, cost in plan.costs.items()
        },
        "score_kept": kept / whole if whole else None,
    }


class Weights(Mapping[str, NDArray[Any]]):
    """A model's parameters by the names of the graph, each read when it is asked for."""

    def __init__(self, state: Mapping[str, StoredTensor]) -> None:
        self._state = state

    def __getitem__(self, name: str) -> NDArray[Any]:
        return as_numbers(name, self._state[name.removeprefix(ROOT)])

    def __iter__(self) -> Iterator[str]:
        return (ROOT + name for name in self._state)

    def __len__(self) -> int:
        return len(self._state)


def as_numbers(name: str, tensor: StoredTensor) -> NDArray[Any]:
    """Return a stored tensor as an array that numpy computes with.

    Raises ``InvalidUpload`` for a type that has no numbers numpy knows (8-bit floats).
    """
    bits = tensor.bits()
    if tensor.dtype == "BF16":
        wide = bits.view(np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32)
    if tensor.dtype.startswith("F8"):
        raise InvalidUpload(
            f"{name} has the type {tensor.dtype}, from which no importance is computed here; send "
            "scores with the request",
            slug="unsupported-dtype",
            tensor=name,
        )
    return bits
