"""Prometheus metrics of one API process, and the totals that workers leave in Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from torchpruner_service.state.redis_clients import REDIS_ERRORS

if TYPE_CHECKING:
    from torchpruner_service.api.app_state import AppState

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

REQUESTS = Counter(
    "torchpruner_http_requests_total", "Requests by route template", ["method", "route", "status"]
)
REQUEST_SECONDS = Histogram(
    "torchpruner_http_request_seconds",
    "Time to answer, by route template",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30),
)
CUT_SECONDS = Histogram(
    "torchpruner_cut_analysis_seconds",
    "Time of one cut analysis, without HTTP",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1),
)
BYTES_IN = Counter("torchpruner_uploaded_bytes_total", "Bytes of models received")
BYTES_OUT = Counter("torchpruner_downloaded_bytes_total", "Bytes of artifacts sent")


async def render(state: AppState) -> bytes:
    """Return everything in Prometheus' text form. Without Redis its part is missing."""
    shared = CollectorRegistry()
    hits = Gauge("torchpruner_graph_cache_hits", "Graphs found in this process", registry=shared)
    misses = Gauge("torchpruner_graph_cache_misses", "Graphs read from Redis", registry=shared)
    hits.set(state.graphs.hits)
    misses.set(state.graphs.misses)
    with contextlib.suppress(*REDIS_ERRORS):
        await _redis_part(state, shared)
    return generate_latest(REGISTRY) + generate_latest(shared)


async def _redis_part(state: AppState, shared: CollectorRegistry) -> None:
    depth = Gauge("torchpruner_queue_depth", "Jobs waiting", ["queue"], registry=shared)
    active = Gauge("torchpruner_active_jobs", "Jobs waiting or running", registry=shared)
    workers = Gauge("torchpruner_workers", "Workers alive", registry=shared)
    depths = await anyio.to_thread.run_sync(state.board.queue_depths)
    for name, value in depths.items():
        depth.labels(name).set(value)
    active.set(await state.redis.zcard(state.keys.active))
    names = [name.decode() for name in await state.redis.smembers(state.keys.workers)]
    if names:
        alive = await state.redis.exists(*[state.keys.worker(name) for name in names])
        workers.set(int(alive))
    totals = await state.redis.hgetall(state.keys.counters)
    shared.register(_Totals({key.decode(): float(value) for key, value in totals.items()}))


class _Totals:
    """Workers' totals as metric families."""

    def __init__(self, totals: dict[str, float]) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Any]:
        jobs = CounterMetricFamily(
            "torchpruner_jobs", "Attempts of jobs that ended", labels=["kind", "state"]
        )
        seconds = HistogramMetricFamily(
            "torchpruner_job_seconds", "Time of jobs by stage", labels=["kind", "stage"]
        )
        stages: dict[tuple[str, str], dict[str, float]] = {}
        for key, value in self._totals.items():
            what, kind, name, *rest = key.split("|")
            if what == "jobs":
                jobs.add_metric([kind, name], value)
            else:
                stages.setdefault((kind, name), {})["|".join([what, *rest])] = value
        for labels, parts in sorted(stages.items()):
            buckets = sorted(
                (float(part.partition("|")[2]), value)
                for part, value in parts.items()
                if part.startswith("bucket|")
            )
            count = parts.get("count", 0.0)
            rows = [(str(edge), value) for edge, value in buckets] + [("+Inf", count)]
            seconds.add_metric(list(labels), rows, parts.get("seconds", 0.0))
        yield jobs
        yield seconds
