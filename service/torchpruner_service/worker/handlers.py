"""What each kind of job does. Each handler returns the job's result and leaves durable files."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_warnings import unread_warnings
from torchpruner_core.planning.plan import Plan
from torchpruner_service.identity import engine_version
from torchpruner_service.problems import Conflict, InvalidUpload, NotFound, Problem
from torchpruner_service.state.worker_kind import may_differ, own_kind
from torchpruner_service.storage import layout
from torchpruner_service.storage.layout import WEIGHTS
from torchpruner_service.worker.artifact_writer import store_artifact
from torchpruner_service.worker.context import HashedFile, JobContext

MAX_GRAPH_BYTES = 512 << 20

SMALL_FILE_SLICES, SLICES_PER_BYTE = 2_000_000, 16
"""ResNet-50 has 265,000 slices in a weightless file of 74,000 bytes, a Llama of 70 billion parameters
three million in five million."""

MOST_LATENCIES = 1000
"""Measurements that are kept of a tenant's model, the newest."""

CARRIES_CODE = frozenset({"torchscript", "pt2"})


def build(context: JobContext) -> dict[str, Any]:
    """Turn an uploaded file into a solved graph."""
    model = context.record.model
    stored = context.objects.get_json(layout.failure(model))
    if stored is not None and not may_differ(stored, own_kind(context.settings)):
        raise KnownFailure(stored)
    facts = context.objects.get_json(layout.facts(model))
    data = context.objects.get(layout.solved(model))
    if facts is None or data is None:
        manifest = _manifest(context)
        if manifest.get("parent"):
            raise Conflict("a derived model's graph is its parent's, cut: derive it again")
        if manifest["engine"] != engine_version():
            # Taken over from an older version, none of whose workers is left.
            manifest["engine"] = engine_version()
            context.objects.put_json(layout.manifest(model), manifest)
        context.stage("fetching", 1)
        source = context.blob_file(manifest["blob"])
        graph = bytearray()

        def collect(chunk: bytes) -> None:
            if len(graph) + len(chunk) > MAX_GRAPH_BYTES:
                raise ValueError("a graph larger than this service stores")
            graph.extend(chunk)

        facts = context.run(
            "build",
            {
                "path": str(source),
                "format": manifest["format"],
                "inputs": manifest["inputs"],
                "max_slices": slices_allowed(context.settings.max_slices, manifest["size"]),
            },
            [source],
            on_data=collect,
            span=(5, 90),
            code=manifest["format"] in CARRIES_CODE,
        )
        data = bytes(graph)
        context.stage("storing", 92)
        facts = facts_of(check_graph(data), bool(facts.get("weightless")))
        context.objects.put(layout.solved(model), data)
        context.objects.put_json(layout.facts(model), facts)
        if stored is not None:
            context.objects.delete(layout.failure(model))
    context.board.connection.set(
        context.board.keys.graph(model), data, ex=context.settings.graph_ttl
    )
    return facts


def slices_allowed(limit: int, size: int) -> int:
    """How many slices the graph of a file of ``size`` bytes may have.

    A few bytes can declare axes of any length, which every process that holds the graph pays for.
    """
    return min(limit, max(SMALL_FILE_SLICES, SLICES_PER_BYTE * size))


def weights(context: JobContext) -> dict[str, Any]:
    """Cut a model's parameters and buffers and store them as safetensors or ``.npz``."""
    return _artifact(context, "weights", context.record.request["format"])


def onnx(context: JobContext) -> dict[str, Any]:
    """Cut a model's ONNX form."""
    return _artifact(context, "onnx", "onnx")


def attach(context: JobContext) -> dict[str, Any]:
    """Check that a file is a weightless model's own file with its weights, and keep it for the
    tenant who sent it."""
    request = context.record.request
    manifest = _manifest(context)
    context.stage("fetching", 5)
    source = context.blob_file(request["blob"])
    outcome = context.run("attach", {"path": str(source)}, [source], span=(10, 90), code=False)
    if outcome["sha256"] != manifest["blob"]:
        raise Conflict(
            "the file is not this model's: without its weights it differs from what was analysed; "
            "upload it as a model of its own",
            slug="weights-mismatch",
            expected=manifest["blob"],
            received=outcome["sha256"],
        )
    facts = {"blob": request["blob"], "format": "onnx"}
    _hold(context, WEIGHTS, facts, "only")
    return facts


def latency(context: JobContext) -> dict[str, Any]:
    """Measure the original and the pruned ONNX model on this worker's device."""
    record, request = context.record, context.record.request
    _path, args, inputs, code = _source(context)
    settings = context.settings
    load = [_load()]
    found = context.run(
        "latency",
        {
            **args,
            "runs": request["runs"],
            "warm_up": request["warm_up"],
            "providers": list(settings.execution_providers),
            "threads": request.get("threads") or settings.threads,
        },
        inputs,
        span=(5, 95),
        code=code,
        gpu=_has_gpu(settings.execution_providers),
    )
    load.append(_load())
    found |= {"load": {"before": load[0], "after": load[1], "cpus": os.cpu_count() or 1}}
    kept = {
        **found,
        **{key: request.get(key) for key in ("cut", "plan", "inputs")},
        "job": record.id,
        "measured_at": time.time(),
    }
    # Names sort by time, so that a page of them is found without reading any.
    _hold(context, layout.LATENCIES, kept, f"{int(record.queued_at * 1000):014d}-{record.id}")
    folder = layout.holdings(record.tenant, record.model) + f"{layout.LATENCIES}/"
    for old in sorted(context.objects.keys(folder))[:-MOST_LATENCIES]:
        context.objects.delete(old)
    return found


def _load() -> float:
    """How many processes ran or waited in the last minute, on average."""
    return round(os.getloadavg()[0], 2)


def _hold(context: JobContext, kind: str, facts: dict[str, Any], item: str) -> None:
    """Keep something for the tenant who asked, unless the model was removed meanwhile."""
    tenant, model = context.record.tenant, context.record.model
    key = layout.holding(tenant, model, kind, item)
    context.objects.put_json(key, facts)
    if not context.objects.exists(layout.owned(tenant, "models", model)):
        context.objects.delete(key)
        raise NotFound(f"model {model} was removed", slug="model-missing")


def plan(context: JobContext) -> dict[str, Any]:
    """Make the plan that a tenant asked for, and keep it for that tenant."""
    record, request = context.record, context.record.request
    tenant, model = record.tenant, record.model
    asked = context.objects.get_json(layout.holding(tenant, model, layout.PLANS, record.id))
    graph = context.objects.get(layout.solved(model))
    if asked is None or graph is None:
        raise NotFound("the plan, or its model, was removed", slug="unknown-plan")
    stored = context.objects.get_json(layout.holding(tenant, model, layout.PLANNED, record.id))
    if stored is not None:
        return {key: stored[key] for key in ("costs", "score_kept")}
    files = {"graph": graph, "request": json.dumps(asked["request"]).encode()}
    paths = {}
    for name, data in files.items():
        paths[name] = context.folder / name
        paths[name].write_bytes(data)
    args: dict[str, Any] = {name: str(path) for name, path in paths.items()}
    inputs, code = list(paths.values()), False
    if "blob" in request:
        _, source, more, code = _source(context)
        args |= source
        inputs += more
    settings = context.settings
    text = bytearray()

    def collect(chunk: bytes) -> None:
        if len(text) + len(chunk) > MAX_GRAPH_BYTES:
            raise ValueError("a plan larger than this service stores")
        text.extend(chunk)

    outcome = context.run(
        "plan",
        {
            "inputs": [],
            "weights": request.get("weights", False),
            "providers": list(settings.execution_providers),
            "threads": settings.threads or 1,
            **args,
        },
        inputs,
        on_data=collect,
        span=(5, 95),
        code=code,
        gpu=bool(request.get("timed")) and _has_gpu(settings.execution_providers),
    )
    made = {**json.loads(bytes(text)), **outcome}
    Plan.from_dict(made["plan"])  # it was made beside untrusted weights
    _hold(context, layout.PLANNED, made, record.id)
    return outcome


def _has_gpu(execution_providers: Sequence[str]) -> bool:
    return "CUDAExecutionProvider" in execution_providers and Path("/dev/nvidiactl").exists()


def facts_of(graph: SolvedGraph, weightless: bool) -> dict[str, Any]:
    """Counts and shapes that a model's view shows, taken from the graph itself."""
    return {
        "nodes": len(graph.nodes),
        "operators": len(graph.operators),
        "modules": len(graph.modules),
        "groups": len(graph.groups()),
        "params": graph.params(),
        "flops": graph.flops(),
        "weightless": weightless,
        "notes": [str(note) for note in graph.metadata.get("notes", ())],
        "warnings": unread_warnings(graph.unread),
        "inputs": [graph.spec(name).to_dict() for name in graph.inputs],
        "outputs": [graph.spec(name).to_dict() for name in graph.outputs],
    }


def check_graph(data: bytes) -> SolvedGraph:
    """Return the graph that bytes from the sandbox are. Raises where they are none, or too large.

    They were made beside untrusted code, and API processes will load them.
    """
    unpacker = zlib.decompressobj()
    try:
        archive = unpacker.decompress(data, MAX_GRAPH_BYTES)
        if unpacker.unconsumed_tail:
            raise ValueError("it unpacks into too much")
        with zipfile.ZipFile(io.BytesIO(archive)) as entries:
            if sum(entry.file_size for entry in entries.infolist()) > MAX_GRAPH_BYTES:
                raise ValueError("its arrays unpack into too much")
        return SolvedGraph.from_bytes(data)
    except (zlib.error, zipfile.BadZipFile, ValueError, TypeError, KeyError) as error:
        raise InvalidUpload(f"the sandbox's answer is not a graph: {error}") from error


HANDLERS: dict[str, Callable[[JobContext], dict[str, Any]]] = {
    "build": build,
    "weights": weights,
    "attach": attach,
    "onnx": onnx,
    "latency": latency,
    "plan": plan,
}


class KnownFailure(Problem):
    """A build that failed before; the stored problem is the answer."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail", "")))
        self.problem = problem

    def to_dict(self) -> dict[str, Any]:
        return self.problem


def _artifact(context: JobContext, task: str, form: str) -> dict[str, Any]:
    identifier = context.record.request["artifact"]
    facts: dict[str, Any] | None = context.objects.get_json(layout.artifact_facts(identifier))
    if facts is not None and context.objects.exists(layout.artifact(identifier)):
        return facts
    _, args, inputs, code = _source(context)
    file = HashedFile(context.folder / "artifact")
    extra = context.run(
        task, {**args, "output": form}, inputs, on_data=file.write, span=(5, 90), code=code
    )
    context.stage("storing", 92)
    if extra.get("warnings"):
        extra["warnings"] = _told(extra["warnings"])
    return store_artifact(context, identifier, file, form, extra)


def _told(warned: Any) -> list[dict[str, str]]:
    """Warnings as the sandbox sent them, where untrusted code may have had its say: few, and short."""
    listed = warned if isinstance(warned, list) else []
    return [
        {key: str(each.get(key))[:2000] for key in ("type", "detail")}
        for each in listed[:20]
        if isinstance(each, dict)
    ]


def _source(context: JobContext) -> tuple[Path, dict[str, Any], list[Path], bool]:
    """The file with the weights, and the cuts that lead from it to what was asked."""
    request = context.record.request
    context.stage("fetching", 2)
    source = context.blob_file(request["blob"])
    cuts = context.folder / "cuts.json"
    cuts.write_text(json.dumps(request["cuts"]))
    args = {
        "path": str(source),
        "format": request["source_format"],
        "inputs": request["inputs"],
        "cuts": str(cuts),
    }
    return source, args, [source, cuts], request["source_format"] in CARRIES_CODE


def _manifest(context: JobContext) -> dict[str, Any]:
    key = layout.manifest(context.record.model)
    manifest: dict[str, Any] | None = context.objects.get_json(key)
    if manifest is None and context.objects.recover(key):
        manifest = context.objects.get_json(key)
    if manifest is None:
        raise NotFound(f"model {context.record.model} is no longer stored", slug="model-missing")
    return manifest
