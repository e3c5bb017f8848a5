"""One cut analysis over HTTP on loopback, warm, one API process, one connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import torchpruner_core
from benchmarks.figures import Figure
from benchmarks.live_service import LiveService, live_service
from benchmarks.models import CASES
from benchmarks.timing import timed_many

MODELS = ("resnet50", "mobilenet_v3_large", "densenet121", "regnet_y_400mf")
MEDIAN_MS = 5.0
API_MIB = 200.0


def loopback_figures() -> Iterator[Figure]:
    """Upload each model without weights, then time cuts spread over its depth."""
    with live_service() as service:
        for case in CASES:
            if case.name in MODELS:
                model, inputs = case.build()
                data = torchpruner_core.export_onnx(model, inputs, weights=False)
                view = service.upload(data, name=case.name)
                yield _cuts(service, case.name, view["id"])
        mib = service.process.memory_info().rss / 2**20
        yield Figure.at_most("http: memory of the API process", mib, API_MIB, "MiB")
        maps = {region.path for region in service.process.memory_maps()}
        loaded = [path for path in maps if "libtorch" in path or "onnxruntime" in path]
        yield Figure.at_most("http: torch and onnxruntime libraries in it", len(loaded), 0, "")


def _cuts(service: LiveService, name: str, model: str) -> Figure:
    groups = service.client.get(f"/v1/models/{model}/groups?limit=500").json()["items"]
    wide = [group for group in groups if group["prunable"] and group["width"] > 8]
    chosen = wide[:: max(1, len(wide) // 5)][:5]
    path = f"/v1/models/{model}/cut-analysis"
    calls = []
    for group in chosen:
        member = group["members"][0]
        body = {"node": member["node"], "dim": member["dim"], "index": [0, 1, 2, 3]}
        content = json.dumps(body).encode()
        post = partial(
            service.client.post, path, content=content, headers={"Content-Type": "application/json"}
        )
        post().raise_for_status()
        calls.append(post)
    time = timed_many(list(calls))
    return Figure.at_most(
        f"http: one cut_analysis of {name}, median",
        1e3 * time.median,
        MEDIAN_MS,
        "ms",
        f"p99 {1e3 * time.p99:.2f} ms, {time.calls} calls",
    )
