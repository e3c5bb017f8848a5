"""The names of keys in Redis, all under one prefix so that several services can share a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Every key this service uses."""

    prefix: str = "torchpruner:"

    def job(self, job: str) -> str:
        """Hash: the state of a job."""
        return f"{self.prefix}job:{job}"

    def queue(self, name: str) -> str:
        """RQ's name of a queue; the prefix keeps deployments on one Redis apart."""
        return f"{self.prefix.replace(':', '-')}{name}"

    def waiting(self, name: str) -> str:
        """List, kept by RQ: the jobs that wait in a queue. Autoscalers read its length."""
        return f"rq:queue:{self.queue(name)}"

    def probe(self, name: str) -> str:
        """String with a short life: written to see whether it can be read."""
        return f"{self.prefix}probe:{name}"

    def line(self, name: str) -> str:
        """Sorted set, and keys that begin so: what waits for its tenants' turns."""
        return f"{self.prefix}line:{name}"

    def lease(self, job: str) -> str:
        """String with a short life: a work-horse is on this job now."""
        return f"{self.prefix}lease:{job}"

    @property
    def active(self) -> str:
        """Sorted set: jobs that have not ended, by the time they were queued."""
        return f"{self.prefix}active"

    def tenant_jobs(self, tenant: str) -> str:
        """Sorted set: the newest jobs that a tenant started, by the time they were queued."""
        return f"{self.prefix}tenant:{tenant}:jobs"

    def graph(self, model: str) -> str:
        """String: a solved graph."""
        return f"{self.prefix}graph:{model}"

    def manifest(self, model: str) -> str:
        """String: the manifest of a model, as JSON."""
        return f"{self.prefix}manifest:{model}"

    def facts(self, model: str) -> str:
        """String: counts of a model whose solved graph is stored, as JSON."""
        return f"{self.prefix}facts:{model}"

    def index(self, tenant: str, kind: str) -> str:
        """Hash: a tenant's ``models``, ``blobs`` or ``artifacts`` as the object store has them."""
        return f"{self.prefix}tenant:{tenant}:{kind}"

    def indexed(self, tenant: str) -> str:
        """String: when the three indexes were last compared with the object store, in Unix seconds."""
        return f"{self.prefix}tenant:{tenant}:indexed"

    def indexing(self, tenant: str) -> str:
        """String with a short life: one process compares a tenant's indexes with the store."""
        return f"{self.prefix}tenant:{tenant}:indexing"

    def changing(self, tenant: str, model: str) -> str:
        """Lock: one request at a time rewrites what a tenant added to a model."""
        return f"{self.prefix}tenant:{tenant}:changing:{model}"

    def worker(self, name: str) -> str:
        """String with a short life: what a living worker can do."""
        return f"{self.prefix}worker:{name}"

    @property
    def workers(self) -> str:
        """Set: names of workers, dead ones included until noticed."""
        return f"{self.prefix}workers"

    @property
    def restored(self) -> str:
        """String with a short life: the pending jobs were read from the object store."""
        return f"{self.prefix}restored"

    @property
    def collecting(self) -> str:
        """String with a life of an hour: garbage was collected within it."""
        return f"{self.prefix}collecting"

    @property
    def reconciling(self) -> str:
        """String with a short life: one process at a time looks for stuck jobs."""
        return f"{self.prefix}reconciling"

    def api_key(self, key: str) -> str:
        return f"{self.prefix}apikey:{key}"

    def rate(self, key: str, window: int) -> str:
        return f"{self.prefix}rate:{key}:{window}"

    @property
    def counters(self) -> str:
        """Hash: totals that workers report, for ``/metrics``."""
        return f"{self.prefix}counters"
