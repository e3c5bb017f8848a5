"""The service under load: locust against one API process, bounded in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from torch import nn

import torchpruner_core
from benchmarks.figures import Figure
from benchmarks.live_service import LiveService
from benchmarks.models import CASES, constant_inputs
from benchmarks.timing import Timing, summary

LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def load_figures(service: LiveService) -> Iterator[Figure]:
    """Latency at 50 requests a second, throughput, and the listing of a large model."""
    case = next(case for case in CASES if case.name == "resnet50")
    model, inputs = case.build()
    data = torchpruner_core.export_onnx(model, inputs, weights=False)
    view = service.upload(data, name="load")
    path, bodies = _questions(service, view["id"])

    steady, failed, _ = _locust(service, path, bodies, users=10, rate=50.0, seconds=20)
    note = f"{steady.calls} requests, {failed} failed"
    yield Figure.at_most(
        "cut-analysis at 50 requests/s: median", 1e3 * steady.median, 5, "ms", note
    )
    yield Figure.at_most("cut-analysis at 50 requests/s: p99", 1e3 * steady.p99, 20, "ms", note)
    yield Figure.at_most("cut-analysis at 50 requests/s: failed", failed, 0, "")
    full, failed, elapsed = _locust(service, path, bodies, users=8, rate=0.0, seconds=10)
    yield Figure.shown(
        "cut-analysis: throughput of one API process",
        full.calls / elapsed,
        "requests/s",
        f"8 users on {os.cpu_count()} cores that locust shares, {failed} failed",
    )
    yield _listing(service)


def _questions(service: LiveService, model: str) -> tuple[str, list[str]]:
    groups = service.client.get(f"/v1/models/{model}/groups?limit=500").json()["items"]
    bodies = [
        json.dumps({**group["members"][0], "index": [0, 1, 2, 3]})
        for group in groups
        if group["prunable"] and group["width"] > 8
    ]
    return f"/v1/models/{model}/cut-analysis", bodies


def _locust(
    service: LiveService, path: str, bodies: list[str], *, users: int, rate: float, seconds: int
) -> tuple[Timing, int, float]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        environment = {
            "BENCH_PATH": path,
            "BENCH_BODIES": json.dumps(bodies),
            "BENCH_RATE": str(rate),
            "BENCH_USERS": str(users),
            "BENCH_OUT": str(out),
        }
        subprocess.run(
            [
                *(sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--headless", "--only-summary"),
                *("-u", str(users), "-r", "100", "-t", f"{seconds}s", "-H", service.url),
                *("--loglevel", "ERROR", "--exit-code-on-error", "0"),
            ],
            env={**os.environ, **environment},
            check=True,
            timeout=seconds + 60,
            capture_output=True,
        )
        said = json.loads(out.read_text())
    # The first second opens connections.
    warm = said["seconds"][users:]
    return summary(warm), len(said["failed"]), float(seconds)


def _listing(service: LiveService) -> Figure:
    blocks = [nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(250)]
    model = nn.Sequential(*blocks).eval()
    modules = sum(1 for _ in model.modules())
    data = torchpruner_core.export_onnx(model, constant_inputs(1, 8, 4, 4), weights=False)
    view = service.upload(data, name="thousand modules")
    path = f"/v1/models/{view['id']}/modules?limit=1000"
    spent = []
    for _ in range(30):
        start = time.perf_counter()
        answer = service.client.get(path)
        spent.append(time.perf_counter() - start)
        answer.raise_for_status()
    total = answer.json()["total"]
    return Figure.at_most(
        "modules of a 1,000-module model, median",
        1e3 * summary(spent).median,
        10,
        "ms",
        f"{modules} nn.Modules, {total} with parameters; one page of 1,000",
    )
