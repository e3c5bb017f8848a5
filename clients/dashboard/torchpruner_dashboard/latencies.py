"""Latencies that were measured through this dashboard.

The service keeps a measurement for some days but does not tell of which cut it was; so what was
asked here is remembered here, for everybody of the tenant, as long as the dashboard runs.
"""

from __future__ import annotations

from collections import OrderedDict

from torchpruner_client import Job, Latency

KEPT = 5000
WHOLE = ""
"""The cut that removes nothing."""


class MeasuredLatencies:
    """Measurements by tenant, model and cut; the oldest are forgotten past :data:`KEPT`."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, str, str], Latency] = OrderedDict()

    def keep(self, tenant: str, model: str, latency: Latency, cut: str = WHOLE) -> None:
        self._found[tenant, model, cut] = latency
        self._found.move_to_end((tenant, model, cut))
        while len(self._found) > KEPT:
            self._found.popitem(last=False)

    def of(self, tenant: str, model: str, cut: str = WHOLE) -> Latency | None:
        return self._found.get((tenant, model, cut))


def of_uploaded_model(model: str, jobs: list[Job]) -> float | None:
    """The median in milliseconds of a model that was uploaded, from the newest of the service's
    ``jobs`` that measured it: whatever the cut was, each timed the uploaded model beside it."""
    for job in jobs:
        if job.model == model and job.kind == "latency" and job.result is not None:
            return float(Latency.from_dict(job.result).original["median_ms"])
    return None
