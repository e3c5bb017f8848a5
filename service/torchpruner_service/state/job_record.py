"""One job's state: queued, running, ready, failed or cancelled."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["queued", "running", "ready", "failed", "cancelled"]
Kind = Literal["build", "weights", "attach", "onnx", "latency", "plan"]

ENDED: frozenset[str] = frozenset({"ready", "failed", "cancelled"})


@dataclass(slots=True)
class JobRecord:
    """What Redis knows of a job.

    A build is shared: ``tenant`` started it, ``tenants`` wait for it, those in ``left`` no longer do.
    Every other job is for ``tenant`` alone.

    ``percent`` is of the whole job, 0 to 100. ``attempt`` counts from 1. ``request`` is what the
    worker needs; ``result`` and ``problem`` are set in ``ready`` and ``failed``. Times are Unix
    seconds.
    """

    id: str
    kind: Kind
    tenant: str
    model: str
    request: dict[str, Any] = field(default_factory=dict)
    state: State = "queued"
    stage: str = "queued"
    percent: float = 0.0
    attempt: int = 1
    queued_at: float = field(default_factory=time.time)
    started_at: float | None = None
    ended_at: float | None = None
    problem: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    request_id: str = ""
    trace: dict[str, str] = field(default_factory=dict)
    engine: str = ""
    """Workers of this engine's version alone take the job; empty is whoever queues it."""
    lane: str = ""
    """The tenant whose turn it is when the job is taken."""
    watchers: list[dict[str, str]] = field(default_factory=list)
    """Webhooks to call when the job ends, each with the tenant who asked for it."""
    tenants: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tenants = self.tenants or [self.tenant]

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def to_hash(self) -> dict[str, str]:
        """The record as a Redis hash: each field as JSON."""
        return {key: json.dumps(value) for key, value in asdict(self).items()}

    @classmethod
    def from_hash(cls, data: Mapping[bytes, bytes]) -> JobRecord | None:
        """Read :meth:`to_hash`'s value; an incomplete one is ``None``."""
        plain = {key.decode(): json.loads(value) for key, value in data.items()}
        known = cls.__dataclass_fields__
        if not {"id", "kind", "tenant", "model"} <= plain.keys():
            return None
        return cls(**{key: value for key, value in plain.items() if key in known})

    def to_request(self) -> dict[str, Any]:
        """What is needed to start the job again from nothing."""
        keep = (
            "id", "kind", "tenant", "model", "request", "queued_at", "attempt", "watchers", "tenants",
            "engine",
        )  # fmt: skip
        return {key: getattr(self, key) for key in keep}

    @classmethod
    def from_request(cls, data: Mapping[str, Any]) -> JobRecord:
        known = cls.__dataclass_fields__
        return cls(**{key: value for key, value in data.items() if key in known})


def queue_of(record: JobRecord) -> str:
    """The queue a job waits in: a GPU worker may take measurements only."""
    timed = record.kind == "latency" or (record.kind == "plan" and record.request.get("timed"))
    return "measure" if timed else "build"
