"""The bodies that go in and out, with an example each, as OpenAPI shows them."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

T = TypeVar("T")

Name = Annotated[str, Field(min_length=1, max_length=1000)]


def _one_line(text: str) -> str:
    """A name as people type it: trimmed, and without what cannot be seen or changes the line."""
    text = unicodedata.normalize("NFC", text.strip())
    if not text:
        raise ValueError("it is empty")
    if any(unicodedata.category(each) in {"Cc", "Cs", "Zl", "Zp"} for each in text):
        raise ValueError("it holds control characters")
    return text


def _lines(text: str) -> str:
    """Free text: control characters other than line ends and tabs are errors."""
    if any(unicodedata.category(each) in {"Cc", "Cs"} and each not in "\n\r\t" for each in text):
        raise ValueError("it holds control characters")
    return text.strip()


GivenName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]
"""What a tenant calls something."""

Tag = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_one_line)]
Note = Annotated[str, Field(max_length=10_000), AfterValidator(_lines)]


class Body(BaseModel):
    """A request body: unknown members are errors, so that a typing error is seen."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """RFC 9457 problem details. Members beyond these name what the error is about."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "unknown-node",
                    "title": "There is no such node",
                    "status": 404,
                    "detail": "there is no node called 'self.conv9.weight'",
                    "node": "self.conv9.weight",
                    "request_id": "5f0c6d9e",
                }
            ]
        },
    )
    type: str
    title: str
    status: int
    detail: str


class WarningView(BaseModel):
    """What a person should know; `type` is a slug that does not change, such as `stale-state`."""

    type: str
    detail: str


Warned = Annotated[
    list[WarningView], Field(description="What a person should know before relying on this")
]


class InputSpec(Body):
    """One input of a model: its name, shape (no dynamic dimensions) and dtype.

    `value`, flat, is what the input always holds (a sampling rate): conditions that follow from it are
    decided when the graph is built.
    """

    name: str = Field(default="", max_length=200)
    shape: list[Annotated[int, Field(ge=0, le=2**31 - 1)]] = Field(max_length=16)
    dtype: str = Field(default="float32", max_length=20)
    value: list[int | float] | None = Field(
        default=None, max_length=64, exclude_if=lambda value: value is None
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "input", "shape": [1, 3, 224, 224], "dtype": "float32"}]
        },
    )


class KnownContent(Body):
    """A model from bytes that the service has already: a blob or a finished upload."""

    blob: str | None = Field(
        default=None, pattern=r"^(sha256:)?[0-9a-f]{64}$", description="sha256 of the file, in hex"
    )
    upload: str | None = Field(default=None, pattern=r"^u[a-z2-7]{26}$")
    inputs: list[InputSpec] = Field(default_factory=list, max_length=256)
    name: str | None = Field(default=None, max_length=200)


class UploadStart(Body):
    """A resumable upload: its length, and the sha256 it will have if that is known."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "length": 102465000,
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                }
            ]
        },
    )

    length: int = Field(ge=1, le=2**50)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class IndexRanges(Body):
    """Indices as half-open ranges: ``[[0, 4], [8, 12]]`` is 0 to 3 and 8 to 11."""

    ranges: list[tuple[int, int]] = Field(max_length=100_000)


Indices = Annotated[
    list[Annotated[int, Field(strict=True)]] | IndexRanges,
    Field(description="Indices to remove along the axis, as a list or as ranges"),
]


class CutSpec(Body):
    """One asked cut: of a node, or of an attribute of a module."""

    node: Name | None = None
    module: Name | None = None
    attribute: Name = "weight"
    index: Indices
    dim: Annotated[
        int, Field(strict=True, description="Axis; negative ones count from the end")
    ] = 0


Granularity = Literal["auto", "outer", "inner", "strict"]


class CutOne(CutSpec):
    """One cut."""

    granularity: Granularity = "auto"
    protect_io: bool = False

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"node": "self.conv1.weight", "index": [0, 1, 2, 3], "dim": 0}]
        },
    )


class CutMany(Body):
    """Several cuts, answered as one joint cut."""

    cuts: list[CutSpec] = Field(min_length=1, max_length=10_000)
    granularity: Granularity = "auto"
    protect_io: bool = False


class Result(BaseModel):
    """A CutResult, as an analysis returned it; all of it, since it is applied as it is or not at all.
    The manual's plain form works too, and may leave out ``iner`` and ``operator``."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "terminal": {
                        "self.conv1.weight": [[0, 1], None, None, None],
                        "self.bn1.weight": [[0, 1]],
                    }
                }
            ]
        },
    )
    terminal: dict[str, list[Any]]
    iner: dict[str, list[Any]] = Field(default_factory=dict)
    operator: dict[str, dict[str, int | list[int]]] = Field(default_factory=dict)


_RESULT_EXAMPLE: dict[str, Any] = {
    "terminal": {"self.conv1.weight": [[0, 1], None, None, None], "self.bn1.weight": [[0, 1]]}
}


class PrunedWeights(Body):
    """A cut, and the form of the file; without a cut the file has every weight."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"result": _RESULT_EXAMPLE, "format": "safetensors"}]},
    )
    result: Result | None = None
    format: Literal["safetensors", "npz"] = "safetensors"


class PrunedOnnx(Body):
    """A cut; without one the file is the whole model."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"result": _RESULT_EXAMPLE}]}
    )
    result: Result | None = None


class Derive(Body):
    """The cut to make, and a name to list the new model under."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"result": _RESULT_EXAMPLE, "name": "after 10 %"}]},
    )
    result: Result
    name: GivenName | None = None


class Description(Body):
    """What to change of what the tenant wrote about a model; what is left out stays. `null` takes a name
    or a note away, and `tags` replaces all tags."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"name": "resnet50 v2", "note": "trained on 3 May", "tags": ["vision", "prod"]}
            ]
        },
    )
    name: GivenName | None = None
    note: Note | None = None
    tags: list[Tag] = Field(default_factory=list, max_length=50)


class AuditEvent(BaseModel):
    """Something that a key of the tenant did."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "8239999999999999999-maaaaaaaaaaaaaaaaaaaaaaaaaa-0f3a9c1e",
                    "at": 1760000000.0,
                    "action": "model.derive",
                    "key": "k3j9x0a8d2f1",
                    "model": "maaaaaaaaaaaaaaaaaaaaaaaaaa",
                    "subject": "mbbbbbbbbbbbbbbbbbbbbbbbbbb",
                    "name": "after 10 %",
                    "details": {"params_before": 25557032, "params_after": 23001328},
                    "request_id": "5f0c6d9e",
                }
            ]
        }
    )
    id: str
    at: float = Field(description="Unix seconds")
    action: str = Field(description="Such as `model.upload`, `cut.analyse`, `plan.make`")
    key: str = Field(description="The id of the API key; `anonymous` where none is asked for")
    model: str | None
    subject: str | None = Field(description="The plan, cut, file, job or model made or removed")
    name: str | None
    details: dict[str, Any]
    request_id: str


class AuditPage(BaseModel):
    """One page of the trail. Ask again with ``cursor`` set to ``next`` for what was before."""

    items: list[AuditEvent]
    next: str | None


class Removal(Body):
    """Models to remove, by id."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"models": ["m" + "a" * 26]}]}
    )
    models: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(
        min_length=1, max_length=1000
    )


class Removed(BaseModel):
    """What came of one model: removed, or the problem in the way."""

    id: str
    removed: bool
    problem: Problem | None = None


class Timing(BaseModel):
    """Milliseconds of one forward pass over all runs; `mad_ms` is the median absolute deviation."""

    median_ms: float
    p10_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    min_ms: float | None = None
    mad_ms: float | None = None


class MeasuredCut(BaseModel):
    """The cut that was measured. The same cut of the same model has the same fingerprint."""

    fingerprint: str
    params_before: int
    params_after: int
    flops_before: int
    flops_after: int


class Load(BaseModel):
    """Processes that ran or waited on the worker's machine in the minute before and after the
    measurement, on average, and its CPUs: a load near or above them is a noisy measurement."""

    before: float
    after: float
    cpus: int


class LatencyView(BaseModel):
    """A measurement: the original and the pruned model in turn, run by run, on one device."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "latency-maaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbbbbbbbbbbbb",
                    "model": "maaaaaaaaaaaaaaaaaaaaaaaaaa",
                    "measured_at": 1760000000.0,
                    "device": "NVIDIA H100 80GB HBM3",
                    "provider": "CUDAExecutionProvider",
                    "runtime": "onnxruntime 1.30.0",
                    "load": {"before": 0.4, "after": 0.6, "cpus": 16},
                    "inputs": [{"name": "x", "shape": [1, 3, 224, 224], "dtype": "float32"}],
                    "runs": 30,
                    "warm_up": 5,
                    "models": {
                        "original": {"median_ms": 4.1, "p10_ms": 4.0, "p90_ms": 4.4, "mad_ms": 0.1},
                        "pruned": {"median_ms": 2.3, "p10_ms": 2.2, "p90_ms": 2.5, "mad_ms": 0.1},
                    },
                    "speedup": 1.7826,
                }
            ]
        }
    )
    id: str = Field(description="The id of the job that measured it")
    model: str
    measured_at: float = Field(description="Unix seconds")
    device: str
    provider: str
    runtime: str
    threads: int | None = Field(default=None, description="null: as many as the runtime likes")
    load: Load
    inputs: list[InputSpec]
    runs: int
    warm_up: int
    models: dict[Literal["original", "pruned"], Timing]
    speedup: float | None = None
    cut: MeasuredCut | None = Field(default=None, description="null: the model alone was measured")
    plan: str | None = Field(default=None, description="The id of the plan that the cut is of")
    degraded: str | None = Field(default=None, description="Why another device was used")


class RemovalView(BaseModel):
    """One entry for each id of the request, in its order."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"results": [{"id": "m" + "a" * 26, "removed": True}]}]}
    )
    results: list[Removed]


class Latency(Body):
    """What to measure: timed runs after warm-up runs, of the model and of what is left after
    ``result``."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"result": _RESULT_EXAMPLE, "runs": 30, "warm_up": 5}]},
    )
    result: Result | None = None
    runs: int = Field(default=30, ge=1, le=1000)
    warm_up: int = Field(default=5, ge=1, le=100)
    threads: int = Field(default=0, ge=0, le=256)


State = Literal["queued", "running", "ready", "failed", "cancelled"]


class ModelView(BaseModel):
    """A model: what it is made of and how far its graph is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "m7wq3i5dzpk2hy6bfvbuxlq4eoa",
                    "name": "resnet50",
                    "owner": "default",
                    "state": "ready",
                    "stage": "ready",
                    "percent": 100.0,
                    "format": "torchscript",
                    "blob": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "size": 102465000,
                    "weightless": False,
                    "has_weights": True,
                    "inputs": [{"name": "x", "shape": [1, 3, 224, 224], "dtype": "float32"}],
                    "created_at": 1760000000.0,
                    "engine": "0.1.0+1.1",
                    "job": "build-m7wq3i5dzpk2hy6bfvbuxlq4eoa",
                    "counts": {"operators": 124, "modules": 160, "groups": 53, "params": 25557032},
                }
            ]
        }
    )
    id: str
    name: str | None = None
    note: str | None = Field(default=None, description="Free text of the tenant's")
    tags: list[str] = Field(default_factory=list)
    revision: str = Field(
        default="", description="What name, note and tags are at: the ETag that `If-Match` takes"
    )
    owner: str = Field(description="The tenant who has it")
    state: State
    stage: str
    percent: float
    format: str
    blob: str | None
    size: int
    weightless: bool | None = Field(description="null until the graph is built")
    has_weights: bool | None
    inputs: list[InputSpec]
    outputs: list[InputSpec] | None = None
    created_at: float
    engine: str
    job: str | None = None
    counts: dict[str, int] | None = None
    parent: str | None = None
    problem: dict[str, Any] | None = None
    message: str | None = Field(default=None, description="What a person should know or do now")
    notes: list[str] | None = Field(
        default=None, description="What the file has lost (names, norms), and how to keep it"
    )
    warnings: Warned = Field(default_factory=list)


class JobView(BaseModel):
    """A job: a graph being built, weights being cut, a latency being measured."""

    id: str
    kind: str
    model: str
    state: State
    stage: str
    percent: float
    attempt: int
    queued_at: float
    started_at: float | None
    ended_at: float | None
    problem: dict[str, Any] | None
    result: dict[str, Any] | None
    message: str | None = None


class WorkerView(BaseModel):
    """A living worker: the queues it takes jobs from and the device it measures on."""

    name: str
    queues: list[str]
    device: str
    engine: str
    runs_code: bool = Field(description="Whether it can confine files that carry code")


class ArtifactView(BaseModel):
    """A file made from a model; ``content`` is where it is downloaded from once it is ready."""

    id: str
    model: str
    state: State
    stage: str
    percent: float
    format: str
    job: str
    size: int | None = None
    sha256: str | None = None
    content: str | None = None
    problem: dict[str, Any] | None = None
    message: str | None = None
    warnings: Warned = Field(default_factory=list)


class UploadView(BaseModel):
    """A resumable upload: how many of its bytes have arrived."""

    id: str
    length: int
    offset: int
    complete: bool
    sha256: str | None


class BlobView(BaseModel):
    """A file that the tenant has uploaded; ``in_use``: a model is made from it."""

    sha256: str
    size: int
    added_at: float
    in_use: bool


class Page(BaseModel, Generic[T]):
    """One page of a list. Ask again with ``cursor`` set to ``next`` for the following one."""

    items: list[T]
    total: int
    next: str | None


class ModuleView(BaseModel):
    name: str
    type: str
    parent: str | None
    children: list[str]
    parameters: list[str]
    operators: list[str]
    params: int
    flops: int
    macs: int


class NodeView(BaseModel):
    name: str
    shape: list[int]
    dtype: str
    kind: str
    module: str
    producer: str | None
    consumers: list[str]
    alias_of: str | None


class OperatorView(BaseModel):
    name: str
    type: str
    module: str
    inputs: list[str]
    outputs: list[str]
    flops: int
    macs: int


class GroupMember(BaseModel):
    node: str
    dim: int


class GroupView(BaseModel):
    """Axes that are pruned together. ``step`` slices go at once; ``reason`` says why none can;
    ``touches`` names the graph's inputs and outputs whose shape would change."""

    id: int
    width: int
    members: list[GroupMember]
    prunable: bool
    reason: str | None
    touches: list[str]
    step: int
    params_per_slice: int
    flops_per_slice: int


class FlopsView(BaseModel):
    """FLOPs of one forward pass (two a multiply-accumulate, as ``torch.utils.flop_counter``)."""

    flops: int
    macs: int
    params: int
    by_module: dict[str, int] | None = None
    by_operator: dict[str, int] | None = None


class LineageEntry(BaseModel):
    id: str
    name: str | None
    parent: str | None
    created_at: float
    params: int | None
    flops: int | None


class LineageView(BaseModel):
    """From the uploaded model (first) to this one (last), and the models derived from it."""

    ancestors: list[LineageEntry]
    children: list[LineageEntry]


class Health(BaseModel):
    status: Literal["ok"]


class Readiness(BaseModel):
    ready: bool = Field(description="This process can answer: Redis and the object store are there")
    redis: bool
    storage: bool
    workers: int = Field(description="Workers alive; with none, what needs a job waits")
    message: str | None = Field(default=None, description="What is away, and what to do about it")


class Version(BaseModel):
    service: str
    engine: str
    api: str
    max_upload_bytes: int
    formats: list[str]
    tenant: str = Field(description="Whose models the caller sees")
    scopes: list[str] = Field(description="What the caller may do")


class CutView(BaseModel):
    """A CutResult: the smallest consistent cut that contains what was asked."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "model": "m7wq3i5dzpk2hy6bfvbuxlq4eoa",
                    "terminal": {
                        "self.conv1.weight": [[0, 1], None, None, None],
                        "self.bn1.weight": [[0, 1]],
                    },
                    "iner": {"110": [None, [0, 1], None, None]},
                    "operator": {},
                    "params_before": 25557032,
                    "params_removed": 300,
                    "flops_before": 8178368512,
                    "flops_after": 8176450048,
                }
            ]
        },
    )
    model: str
    terminal: dict[str, list[Any]]
    iner: dict[str, list[Any]]
    operator: dict[str, dict[str, Any]]
    warnings: Warned = Field(default_factory=list)
