"""Warm cut analyses against one API process: at 50 requests a second, then as many as it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import torchpruner_core
from benchmarks.figures import Figure
from benchmarks.live_service import LiveService, live_service
from benchmarks.models import CASES

RATE = 50
SECONDS = 20
MEDIAN_MS, P99_MS = 5.0, 20.0
API_MIB = 200.0


def load_figures() -> Iterator[Figure]:
    """Yield latency at the fixed rate, throughput of a closed loop, and the process's memory."""
    case = next(case for case in CASES if case.name == "resnet50")
    module, inputs = case.build()
    data = torchpruner_core.export_onnx(module, inputs, weights=False)
    with live_service() as service:
        model = service.upload(data)["id"]
        nodes = _prunable(service, model)
        paced = run_locust(service.url, model, nodes, users=10, pace=RATE / 10, seconds=SECONDS)
        yield Figure.at_most(
            f"cut-analysis at {RATE}/s: median", float(np.median(paced)), MEDIAN_MS, "ms"
        )
        yield Figure.at_most(
            f"cut-analysis at {RATE}/s: p99", float(np.percentile(paced, 99)), P99_MS, "ms"
        )
        yield Figure.shown("requests a second sent", len(paced) / SECONDS, "1/s")
        closed = run_locust(service.url, model, nodes, users=8, pace=0, seconds=10)
        yield Figure.shown("throughput of one API process", len(closed) / 10, "1/s", "8 users")
        yield Figure.at_most(
            "API process after the load", service.process.memory_info().rss / 2**20, API_MIB, "MiB"
        )


def run_locust(
    url: str, model: str, nodes: list[str], *, users: int, pace: float, seconds: int
) -> list[float]:
    """Return every response time in milliseconds. Raises ``RuntimeError`` where a request failed."""
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times.json"
        subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "locust",
                    "-f",
                    str(Path(__file__).with_name("locustfile.py")),
                ),
                *("--headless", "--only-summary", "--loglevel", "ERROR"),
                *("-u", str(users), "-r", str(users), "-t", f"{seconds}s", "--host", url),
            ],
            env={
                **os.environ,
                "PACE": str(pace),
                "TARGET": model,
                "NODES": json.dumps(nodes),
                "TIMES": str(times),
            },
            capture_output=True,
            timeout=seconds + 60,
        )
        found = json.loads(times.read_text())
    if found["failures"]:
        raise RuntimeError(f"requests failed under load: {found['failures']}")
    measured: list[float] = found["times"]
    # The first requests open connections.
    return measured[users:]


def _prunable(service: LiveService, model: str) -> list[str]:
    groups = service.client.get(f"/v1/models/{model}/groups?limit=500").json()["items"]
    return [
        group["members"][0]["node"]
        for group in groups
        if group["prunable"] and group["width"] >= 64 and group["members"][0]["dim"] == 0
    ]
