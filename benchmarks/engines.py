"""The engine's figures: each model measured beside Torch-Pruning in a process of its own."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.figures import Figure
from benchmarks.models import CASES, Case

PEER_LIMIT = 120.0
"""Seconds that the peer has for one model before it is ended."""
OURS_LIMIT = 300.0
QUERY_TARGET = 1e-3
UPLOAD_TARGET = 0.01
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Facts = dict[str, dict[str, Any]]


def measure(case: Case) -> tuple[Facts, str]:
    """Run one case in a child; return what it said and how it ended: ``''`` or the reason."""
    command = [sys.executable, "-m", "benchmarks.side_by_side", case.name]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **ONE_THREAD},
    )
    assert child.stdout is not None and child.stderr is not None
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []
    readers = [
        threading.Thread(target=_pump, args=(child.stdout, lines), daemon=True),
        threading.Thread(target=lambda: errors.append(child.stderr.read()), daemon=True),  # type: ignore[union-attr]
    ]
    for reader in readers:
        reader.start()
    facts: Facts = {}
    deadline = time.monotonic() + OURS_LIMIT
    ended = ""
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            ended = f"this project did not finish in {OURS_LIMIT:.0f} s"
            if "peer_begins" in facts:
                ended = f"Torch-Pruning did not finish in {PEER_LIMIT:.0f} s"
            child.kill()
            break
        if line is None:
            break
        said = json.loads(line)
        facts[said.pop("what")] = said
        if "peer_begins" in facts and "peer_all" not in facts:
            deadline = time.monotonic() + PEER_LIMIT
    code = child.wait()
    readers[1].join(5.0)
    if not ended and code != 0:
        last = [text for text in "".join(errors).splitlines() if text.strip()][-1:]
        ended = f"exit code {code}: {''.join(last)}"
    return facts, ended


def _pump(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        if line.startswith("{"):
            lines.put(line)
    lines.put(None)


def figures_of(case: Case, facts: Facts, ended: str) -> Iterator[Figure]:
    """Turn what a case said into figures."""
    name = case.name
    if "query" not in facts:
        yield Figure(f"{name}: measured", 0, 1, "", False, ended)
        return
    ours, light = facts["all"]["seconds"], facts["all_weightless"]["seconds"]
    found = f"{facts['groups']['count']} groups"
    yield Figure.shown(f"{name}: ONNX bytes to all groups", 1e3 * ours, "ms", found)
    whole = facts["module_all"]["seconds"]
    yield Figure.shown(f"{name}: nn.Module to all groups", 1e3 * whole, "ms", "capture included")
    if case.seconds is not None:
        yield Figure.at_most(f"{name}: ONNX bytes to all groups", ours, case.seconds, "s")
    if "peer_all" in facts:
        peer_seconds = facts["peer_all"]["seconds"]
        count = facts["peer_groups"]["count"]
        note = f"Torch-Pruning {1e3 * peer_seconds:.0f} ms, {count} groups"
    else:
        peer_seconds = PEER_LIMIT
        note = f"{ended}; a lower bound" if "did not finish" in ended else f"Torch-Pruning: {ended}"
    if "peer_all" in facts or "did not finish" in ended:
        for label, seconds, target in (
            ("all groups", ours, case.build_ratio),
            ("all groups, weightless file", light, case.build_ratio_weightless),
        ):
            yield Figure.at_least(
                f"{name}: times faster than Torch-Pruning, {label}",
                peer_seconds / seconds,
                target,
                "x",
                note,
            )
        yield Figure.at_least(
            f"{name}: times faster than Torch-Pruning, from the nn.Module",
            peer_seconds / facts["module_all"]["seconds"],
            case.module_ratio,
            "x",
            note,
        )
    else:
        yield Figure.shown(f"{name}: Torch-Pruning failed", 0, "", note)
    query = facts["query"]["seconds"]
    yield Figure.at_most(
        f"{name}: one cut_analysis, median",
        1e3 * query,
        1e3 * QUERY_TARGET,
        "ms",
        f"p99 {1e3 * facts['query']['p99']:.2f} ms",
    )
    if "peer_query" in facts:
        peer_query = facts["peer_query"]["seconds"]
        yield Figure.at_least(
            f"{name}: times faster than get_pruning_group",
            peer_query / query,
            1.0,
            "x",
            f"Torch-Pruning {1e3 * peer_query:.3f} ms",
        )
    size = facts["bytes"]
    yield Figure.at_most(
        f"{name}: bytes of a weightless upload",
        100 * size["light"] / size["full"],
        100 * UPLOAD_TARGET,
        "%",
        f"{size['light']:,} of {size['full']:,}",
    )


def engine_figures(names: list[str] | None = None) -> Iterator[tuple[str, list[Figure]]]:
    """Measure the cases one after another; yield each with its figures."""
    for case in CASES:
        if names and case.name not in names:
            continue
        facts, ended = measure(case)
        yield case.name, list(figures_of(case, facts, ended))
