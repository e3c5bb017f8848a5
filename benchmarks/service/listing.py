"""One page with every module of a model of about a thousand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch

import torchpruner_core
from benchmarks.figures import Figure
from benchmarks.live_service import live_service

BLOCKS = 200
LIMIT_MS = 10.0


def listing_figures() -> Iterator[Figure]:
    """Yield the median time of ``GET /modules?limit=1000``."""
    blocks = []
    for _ in range(BLOCKS):
        # Five entries each: the block, its linear with weight and bias, its activation.
        blocks.append(torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU()))
    module = torch.nn.Sequential(*blocks).eval()
    data = torchpruner_core.export_onnx(module, [torch.zeros(1, 16)], weights=False)
    with live_service() as service:
        model = service.upload(data)["id"]
        path = f"/v1/models/{model}/modules?limit=1000"
        count = len(service.client.get(path).json()["items"])
        times = []
        for _ in range(50):
            start = time.perf_counter()
            service.client.get(path)
            times.append(time.perf_counter() - start)
    yield Figure.at_most(f"listing {count} modules", statistics.median(times) * 1e3, LIMIT_MS, "ms")
