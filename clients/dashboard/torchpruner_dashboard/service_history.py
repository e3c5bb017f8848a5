"""What the service page remembers while it is open: rates come from two readings."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from torchpruner_dashboard.prometheus_text import Metrics

REQUESTS = "torchpruner_http_requests_total"
SECONDS = "torchpruner_http_request_seconds"
KEPT = 150


@dataclass(frozen=True, slots=True)
class Moment:
    """One reading: Unix time, requests a second since the one before, jobs waiting."""

    at: float
    rate: float
    waiting: float


@dataclass(frozen=True, slots=True)
class RouteFigures:
    """How one route does: requests in all and a second, and its time to answer in seconds."""

    method: str
    route: str
    count: float
    rate: float
    median: float | None
    p95: float | None


@dataclass
class ServiceHistory:
    """Give it a reading every few seconds."""

    moments: deque[Moment] = field(default_factory=lambda: deque(maxlen=KEPT))
    metrics: Metrics = field(default_factory=lambda: Metrics(""))
    _before: Metrics | None = None
    _read_at: float = 0.0
    _seconds: float = 0.0

    def add(self, text: str) -> None:
        now = time.time()
        self._before = self.metrics if self._read_at else None
        self._seconds = now - self._read_at if self._read_at else 0.0
        self._read_at = now
        self.metrics = Metrics(text)
        self.moments.append(Moment(now, self._rate(), self.waiting))

    @property
    def waiting(self) -> float:
        """Jobs in queues."""
        return self.metrics.total("torchpruner_queue_depth")

    @property
    def hit_rate(self) -> float | None:
        """The share of graphs that were at hand, in percent; ``None`` before the first."""
        hits = self.metrics.total("torchpruner_graph_cache_hits")
        misses = self.metrics.total("torchpruner_graph_cache_misses")
        return 100 * hits / (hits + misses) if hits + misses else None

    @property
    def errors(self) -> float:
        """Answers of 500 and more. A probe's 503 is how it says "not yet", so probes are left
        out."""
        return sum(
            sample.value
            for sample in self.metrics.samples(REQUESTS)
            if sample.labels["status"] >= "500" and sample.labels["route"].startswith("/v1")
        )

    def routes(self) -> list[RouteFigures]:
        """Every route that was asked, the busiest first."""
        pairs = {
            (s.labels["method"], s.labels["route"])
            for s in self.metrics.samples(f"{SECONDS}_count")
        }
        found = [self._route(method, route) for method, route in pairs]
        return sorted(found, key=lambda figures: -figures.count)

    def _route(self, method: str, route: str) -> RouteFigures:
        labels = {"method": method, "route": route}
        return RouteFigures(
            method,
            route,
            self.metrics.total(f"{SECONDS}_count", **labels),
            self._rate(**labels),
            self.metrics.quantile(SECONDS, 0.5, **labels),
            self.metrics.quantile(SECONDS, 0.95, **labels),
        )

    def _rate(self, **labels: str) -> float:
        if self._before is None or self._seconds <= 0:
            return 0.0
        grown = self.metrics.total(REQUESTS, **labels) - self._before.total(REQUESTS, **labels)
        # Another API process behind the same address may have answered: never negative.
        return max(0.0, grown / self._seconds)
