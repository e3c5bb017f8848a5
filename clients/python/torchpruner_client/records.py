"""What the service tells about a model, as small immutable records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torchpruner_core.cut_result import TensorSpec


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model on the service. ``state`` is queued, running, ready, failed or cancelled; times are
    Unix seconds."""

    id: str
    name: str | None
    state: str
    stage: str
    percent: float
    format: str
    size: int
    weightless: bool | None
    has_weights: bool | None
    inputs: tuple[TensorSpec, ...]
    parent: str | None
    problem: Mapping[str, Any] | None
    message: str | None
    counts: Mapping[str, int]
    created_at: float = 0.0
    owner: str = ""
    job: str | None = None
    blob: str | None = None
    """The sha256 of the file, in hex."""
    notes: tuple[str, ...] = ()
    """What the file has lost (names, norms), and how to keep it."""
    note: str | None = None
    """Free text that somebody wrote about it."""
    tags: tuple[str, ...] = ()
    revision: str = ""
    """What name, note and tags are at; a change can be made conditional on it."""
    warnings: tuple[Mapping[str, str], ...] = ()
    """What a person should know, as ``{"type": slug, "detail": words}``."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelInfo:
        return cls(
            id=data["id"],
            name=data.get("name"),
            state=data["state"],
            stage=data["stage"],
            percent=float(data["percent"]),
            format=data["format"],
            size=int(data["size"]),
            weightless=data.get("weightless"),
            has_weights=data.get("has_weights"),
            inputs=tuple(TensorSpec.from_dict(item) for item in data.get("inputs", ())),
            parent=data.get("parent"),
            problem=data.get("problem"),
            message=data.get("message"),
            counts=data.get("counts") or {},
            created_at=float(data.get("created_at") or 0.0),
            owner=data.get("owner") or "",
            job=data.get("job"),
            blob=data.get("blob"),
            notes=tuple(data.get("notes") or ()),
            note=data.get("note"),
            tags=tuple(data.get("tags") or ()),
            revision=data.get("revision") or "",
            warnings=tuple(data.get("warnings") or ()),
        )


@dataclass(frozen=True, slots=True)
class Group:
    """Axes that are pruned together. ``members`` are ``(node, dim)``; ``step`` slices go at once;
    ``touches`` names the graph's inputs and outputs whose shape would change."""

    id: int
    width: int
    members: tuple[tuple[str, int], ...]
    prunable: bool
    reason: str | None
    step: int
    params_per_slice: int
    flops_per_slice: int
    touches: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Group:
        return cls(
            int(data["id"]),
            int(data["width"]),
            tuple((item["node"], int(item["dim"])) for item in data["members"]),
            bool(data["prunable"]),
            data.get("reason"),
            int(data["step"]),
            int(data["params_per_slice"]),
            int(data["flops_per_slice"]),
            tuple(data.get("touches", ())),
        )


@dataclass(frozen=True, slots=True)
class Flops:
    """FLOPs of one forward pass, two a multiply-accumulate, as ``torch.utils.flop_counter`` counts
    them."""

    flops: int
    macs: int
    params: int
    by_module: Mapping[str, int] = field(default_factory=dict)
    by_operator: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Flops:
        return cls(
            int(data["flops"]),
            int(data["macs"]),
            int(data["params"]),
            data.get("by_module") or {},
            data.get("by_operator") or {},
        )


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of a forward pass of the original and the pruned model on one worker's
    device."""

    device: str
    provider: str
    original: Mapping[str, float]
    pruned: Mapping[str, float]
    speedup: float
    degraded: str | None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Latency:
        return cls(
            data["device"],
            data["provider"],
            data["models"]["original"],
            data["models"]["pruned"],
            float(data["speedup"]),
            data.get("degraded"),
        )


@dataclass(frozen=True, slots=True)
class StoredLatency:
    """A measurement that the service keeps: the original and the pruned model in turn, run by run.

    ``original`` and ``pruned`` have ``median_ms``, ``p10_ms``, ``p90_ms``, ``p95_ms``, ``min_ms`` and
    ``mad_ms`` (the median absolute deviation). ``load`` is how many processes ran or waited on the
    machine ``before`` and ``after``, of ``cpus``. ``cut`` has the cut's ``fingerprint`` and costs, and is
    ``None`` where the model alone was measured; ``plan`` is the id of the plan that the cut is of.
    ``measured_at`` is in Unix seconds.
    """

    id: str
    model: str
    measured_at: float
    device: str
    provider: str
    runtime: str
    threads: int | None
    load: Mapping[str, float]
    inputs: tuple[TensorSpec, ...]
    runs: int
    warm_up: int
    original: Mapping[str, float]
    pruned: Mapping[str, float]
    speedup: float | None
    cut: Mapping[str, Any] | None
    plan: str | None
    degraded: str | None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StoredLatency:
        return cls(
            id=data["id"],
            model=data["model"],
            measured_at=float(data["measured_at"]),
            device=data["device"],
            provider=data["provider"],
            runtime=data["runtime"],
            threads=data.get("threads"),
            load=dict(data["load"]),
            inputs=tuple(TensorSpec.from_dict(item) for item in data["inputs"]),
            runs=int(data["runs"]),
            warm_up=int(data["warm_up"]),
            original=dict(data["models"]["original"]),
            pruned=dict(data["models"]["pruned"]),
            speedup=data.get("speedup"),
            cut=data.get("cut"),
            plan=data.get("plan"),
            degraded=data.get("degraded"),
        )


@dataclass(frozen=True, slots=True)
class SavedCut:
    """A cut that was saved under a name. The same cut of the same model has the same ``fingerprint``,
    here and in measurements; ``created_at`` is in Unix seconds."""

    id: str
    model: str
    name: str
    note: str | None
    created_at: float
    fingerprint: str
    params_before: int
    params_after: int
    flops_before: int
    flops_after: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SavedCut:
        return cls(**{name: data.get(name) for name in cls.__dataclass_fields__})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something that a key of the tenant did: ``action`` is such as ``model.derive``, ``subject`` the plan,
    cut, file, job or model that was made or removed. ``at`` is in Unix seconds."""

    id: str
    at: float
    action: str
    key: str
    model: str | None
    subject: str | None
    name: str | None
    details: Mapping[str, Any]
    request_id: str

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AuditEvent:
        return cls(**{name: data.get(name) for name in cls.__dataclass_fields__})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Removed:
    """What came of removing one model; ``problem`` says what was in the way."""

    id: str
    removed: bool
    problem: Mapping[str, Any] | None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Removed:
        return cls(data["id"], bool(data["removed"]), data.get("problem"))


@dataclass(frozen=True, slots=True)
class LineageEntry:
    """One model of a lineage."""

    id: str
    name: str | None
    parent: str | None
    params: int | None
    flops: int | None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LineageEntry:
        return cls(data["id"], data["name"], data["parent"], data["params"], data["flops"])


@dataclass(frozen=True, slots=True)
class Job:
    """A job: ``kind`` is build, weights, attach, onnx or latency. Times are Unix seconds."""

    id: str
    kind: str
    model: str
    state: str
    stage: str
    percent: float
    attempt: int
    queued_at: float
    started_at: float | None
    ended_at: float | None
    problem: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    message: str | None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        return cls(**{name: data.get(name) for name in cls.__dataclass_fields__})  # type: ignore[arg-type]

    @property
    def retryable(self) -> bool:
        """Whether the service would start it again: it was cancelled, or failed for no fault of the
        model."""
        failed_by_chance = self.state == "failed" and bool((self.problem or {}).get("retryable"))
        return self.state == "cancelled" or failed_by_chance


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """A plan on the service: its request, how far it is, and what it costs once it is ready.

    ``scores`` is the name of those that came with the request, ``importance`` that of those which the
    service computed; ``score_kept`` is a share of all scores. ``measured_on`` has the ``device``, the
    ``runtime``, ``threads`` and ``load`` of a latency that was measured.
    """

    id: str
    model: str
    name: str | None
    state: str
    created_at: float
    budget: dict[str, Any]
    costs: dict[str, dict[str, float]]
    problem: dict[str, Any] | None
    rules: dict[str, Any]
    importance: str | None
    scores: str | None
    score_kept: float | None
    measured_on: dict[str, Any] | None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PlanRecord:
        return cls(
            data["id"],
            data["model"],
            data.get("name"),
            data["state"],
            float(data["created_at"]),
            dict(data["budget"]),
            dict(data.get("costs") or {}),
            data.get("problem"),
            dict(data.get("rules") or {}),
            data.get("importance"),
            data.get("scores"),
            data.get("score_kept"),
            data.get("measured_on"),
        )


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """What a plan for ``fraction`` of the cost comes to; ``score_kept`` is a share of all scores.

    ``widths`` has the width of each group of the plan, in its order, and ``bounds`` what stopped its cut
    (``"budget"``, ``"max_cut"``, ``"min_keep"``, ``"round_to"``; ``None`` where it was not cut). Where no
    plan under the rules is so cheap, ``problem`` says why and the rest is empty.
    """

    fraction: float
    costs: dict[str, dict[str, float]]
    score_kept: float | None
    widths: tuple[int, ...] = ()
    problem: str | None = None
    bounds: tuple[str | None, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FrontierPoint:
        return cls(
            float(data["fraction"]),
            dict(data.get("costs") or {}),
            data.get("score_kept"),
            tuple(data.get("widths") or ()),
            data.get("problem"),
            tuple(data.get("bounds") or ()),
        )


@dataclass(frozen=True, slots=True)
class Worker:
    """A living worker: the queues it takes jobs from and the device it measures on."""

    name: str
    queues: tuple[str, ...]
    device: str
    engine: str
    runs_code: bool

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Worker:
        return cls(
            data["name"],
            tuple(data["queues"]),
            data["device"],
            data["engine"],
            bool(data["runs_code"]),
        )


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """Versions and limits of a service, and as whom it knows the caller."""

    service: str
    engine: str
    max_upload_bytes: int
    formats: tuple[str, ...]
    tenant: str
    scopes: tuple[str, ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ServiceInfo:
        return cls(
            data["service"],
            data["engine"],
            int(data["max_upload_bytes"]),
            tuple(data["formats"]),
            data.get("tenant", ""),
            tuple(data.get("scopes", ())),
        )


@dataclass(frozen=True, slots=True)
class Readiness:
    """Which parts of a service answer; ``message`` says what to do about those that do not.

    ``ready`` is whether questions are answered; jobs also need one of ``workers``.
    """

    ready: bool
    redis: bool
    storage: bool
    workers: int
    message: str | None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Readiness:
        return cls(
            bool(data["ready"]),
            bool(data["redis"]),
            bool(data["storage"]),
            int(data["workers"]),
            data.get("message"),
        )
