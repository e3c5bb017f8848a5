"""A ResNet-50 as TorchScript that the service has never seen: from the first byte to the first answer."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Iterator

import torch
import torchvision

from benchmarks.figures import Figure
from benchmarks.live_service import live_service

LIMIT_S = 5.0


def cold_figures() -> Iterator[Figure]:
    """Yield the seconds from the upload's start to the answer of its first cut analysis."""
    torch.manual_seed(time.time_ns() % 2**31)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torchvision.models.resnet50().eval()
        torch.jit.save(torch.jit.trace(module, torch.zeros(1, 3, 224, 224)), buffer)
    with live_service() as service:
        start = time.perf_counter()
        model = service.upload(buffer.getvalue(), input="x:1x3x224x224")["id"]
        ready = time.perf_counter()
        body = {"node": "self.layer1.0.conv3.weight", "index": [0, 1, 2, 3]}
        service.client.post(f"/v1/models/{model}/cut-analysis", json=body).raise_for_status()
        end = time.perf_counter()
    yield Figure.shown("cold ResNet-50: upload until the graph is built", ready - start, "s")
    yield Figure.at_most("cold ResNet-50: upload to first answer", end - start, LIMIT_S, "s")
