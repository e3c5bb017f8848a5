"""How long a forward pass takes on this worker's device, before and after pruning."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def measure(
    models: Mapping[str, bytes],
    *,
    runs: int,
    warm_up: int,
    providers: Sequence[str],
    threads: int,
    progress: Callable[[float], None],
) -> dict[str, Any]:
    """Time each model; they take turns run by run, so that a busy moment hurts them alike.

    Returns ``{"device", "provider", "runtime", "runs", "warm_up", "models": {name: {"median_ms",
    "p10_ms", "p90_ms", "p95_ms", "min_ms", "mad_ms"}}, "speedup"}``; ``mad_ms`` is the median absolute
    deviation from the median. Where the asked provider does not start, the CPU takes over and
    ``degraded`` says why.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    sessions, used, reason = {}, "", None
    for name, data in models.items():
        session, used, reason = _session(onnxruntime, data, providers, threads)
        sessions[name] = (session, _feeds(session))
    for number in range(warm_up):
        for session, feeds in sessions.values():
            session.run(None, feeds)
        progress(0.2 * (number + 1) / warm_up)
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(runs):
        for name, (session, feeds) in sessions.items():
            start = time.perf_counter()
            session.run(None, feeds)
            times[name].append((time.perf_counter() - start) * 1e3)
        progress(0.2 + 0.8 * (number + 1) / runs)
    result: dict[str, Any] = {
        "device": device_name(used),
        "provider": used,
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "threads": threads or None,
        "runs": runs,
        "warm_up": warm_up,
        "models": {name: _summary(values) for name, values in times.items()},
    }
    if reason:
        result["degraded"] = reason
    medians = [result["models"][name]["median_ms"] for name in models]
    if len(medians) == 2 and medians[1] > 0:
        result["speedup"] = round(medians[0] / medians[1], 4)
    return result


def has_cuda(providers: Sequence[str]) -> bool:
    """Whether a GPU may be used, and is there."""
    return "CUDAExecutionProvider" in providers and Path("/dev/nvidiactl").exists()


def _session(
    onnxruntime: Any, data: bytes, providers: Sequence[str], threads: int
) -> tuple[Any, str, str | None]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    available = set(onnxruntime.get_available_providers())
    usable = [name for name in providers if name in available]
    reason = None
    if "CUDAExecutionProvider" in usable and not has_cuda(usable):
        usable.remove("CUDAExecutionProvider")
        reason = "this worker has no CUDA device; measured on the CPU"
    if "CPUExecutionProvider" not in usable:
        usable.append("CPUExecutionProvider")
    try:
        session = onnxruntime.InferenceSession(data, options, providers=usable)
    except Exception as error:
        if usable == ["CPUExecutionProvider"]:
            raise
        reason = f"{usable[0]} did not start ({error}); measured on the CPU"
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session, session.get_providers()[0], reason


_NUMPY = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def _feeds(session: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    feeds = {}
    for item in session.get_inputs():
        dtype = _NUMPY[item.type]
        shape = [size if isinstance(size, int) else 1 for size in item.shape]
        if dtype.startswith("float"):
            feeds[item.name] = random.standard_normal(shape).astype(dtype)
        else:
            # Zero is a valid index, token and mask everywhere.
            feeds[item.name] = np.zeros(shape, dtype)
    return feeds


def _summary(values: list[float]) -> dict[str, float]:
    array = np.array(values)
    median = float(np.median(array))
    found = {
        "median_ms": median,
        "p10_ms": float(np.percentile(array, 10)),
        "p90_ms": float(np.percentile(array, 90)),
        "p95_ms": float(np.percentile(array, 95)),
        "min_ms": float(array.min()),
        "mad_ms": float(np.median(np.abs(array - median))),
    }
    return {name: round(value, 4) for name, value in found.items()}


def device_name(provider: str) -> str:
    """What the processor that ``provider`` runs on is called."""
    if provider == "CUDAExecutionProvider":
        import torch

        return str(torch.cuda.get_device_name(0))
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
