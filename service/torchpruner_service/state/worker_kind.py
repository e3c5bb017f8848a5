"""What a worker's answers depend on besides the model: its engine, its machine, its limits.

A failure that came from these is no verdict on the file: another kind of worker may succeed.
"""

from __future__ import annotations

import platform
from typing import Any

from torchpruner_service.identity import engine_version
from torchpruner_service.settings import Settings

OF_THE_WORKER = frozenset(
    {"time-limit", "memory-limit", "disk-limit", "model-crashed", "graph-too-large"}
)
"""Problems that end a job here and need not elsewhere."""

WORKER = "worker"
"""The member of a stored problem that says which kind of worker found it."""


def own_kind(settings: Settings) -> dict[str, Any]:
    """The kind of this worker, as plain JSON."""
    return {
        "engine": engine_version(),
        "machine": platform.machine(),
        "memory": settings.sandbox_memory,
        "seconds": settings.job_timeout,
        "cpu_seconds": settings.sandbox_cpu_seconds,
        "file_bytes": settings.sandbox_file_bytes,
        "files": settings.sandbox_files,
        "result_bytes": settings.sandbox_result_bytes,
        "slices": settings.max_slices,
    }


def noted(problem: dict[str, Any], kind: dict[str, Any]) -> dict[str, Any]:
    """``problem``, and which kind of worker found it where that matters."""
    rest = {key: value for key, value in problem.items() if key != WORKER}
    return {**rest, WORKER: kind} if problem.get("type") in OF_THE_WORKER else rest


def may_differ(problem: dict[str, Any], kind: dict[str, Any]) -> bool:
    """Whether a worker of ``kind`` need not come to a stored problem too."""
    return problem.get("type") in OF_THE_WORKER and problem.get(WORKER) != kind
