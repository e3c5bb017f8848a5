"""Models as the API shows them: registered, looked up, and their graphs loaded."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread

from torchpruner_core.cut_result import TensorSpec
from torchpruner_core.cut_warnings import unread_warnings
from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.audit_trail import note
from torchpruner_service.api.catalog import Entry, unknown_model
from torchpruner_service.api.cut_results import fitting_result
from torchpruner_service.api.graph_cache import CachedGraph
from torchpruner_service.api.jobs_service import (
    find_job,
    seen_by,
    submit,
    tell_ready,
    waiting_message,
)
from torchpruner_service.api.schemas import Derive
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.identity import derived_model_id, engine_version, model_id
from torchpruner_service.observability.logs import current_request_id
from torchpruner_service.observability.tracing import current_trace
from torchpruner_service.problems import Conflict, InvalidRequest, Unavailable
from torchpruner_service.state.job_record import JobRecord
from torchpruner_service.state.redis_clients import REDIS_ERRORS, unavailable
from torchpruner_service.storage import layout


def build_job(model: str) -> str:
    """The id of the job that builds a model's graph."""
    return f"build-{model}"


async def register(
    state: AppState,
    principal: Principal,
    *,
    blob: str,
    size: int,
    form: str,
    inputs: list[TensorSpec],
    name: str | None,
    watchers: list[dict[str, str]],
) -> tuple[dict[str, Any], bool]:
    """Record an uploaded model and have its graph built; return its view and whether it was new.

    When this returns, the model survives the loss of Redis and of every process.
    """
    identifier = model_id(blob, inputs)
    note(blob=blob, size=size, format=form)
    async with _added(state, principal, identifier, root=identifier, blob=blob, name=name):
        if not await state.objects.aexists(layout.manifest(identifier)):
            manifest = {
                "id": identifier,
                "blob": blob,
                "size": size,
                "format": form,
                "inputs": [spec.to_dict() for spec in inputs],
                "engine": engine_version(),
            }
            await state.objects.aput_json(layout.manifest(identifier), manifest)
        await require_blob(state, blob)
    started = await submit_build(state, principal, identifier, watchers)
    return await view(state, principal.tenant, identifier), started


async def require_blob(state: AppState, blob: str) -> None:
    """Raise ``Unavailable`` where a file, whose owner is written, was collected just before."""
    key = layout.blob(blob)
    if not await state.objects.aexists(key) and not await state.objects.arecover(key):
        raise Unavailable(
            "the file was removed while it was registered again; send it once more",
            slug="blob-gone",
        )


@contextlib.asynccontextmanager
async def _added(
    state: AppState,
    who: Principal,
    model: str,
    *,
    root: str,
    blob: str | None,
    name: str | None,
) -> AsyncIterator[None]:
    """Give a model to a tenant, within its quota, while what it is made of is written in the block.

    The owner first, as for blobs: what there is is looked at then. Where the block fails, the tenant
    has no new model.
    """
    if not await state.catalog.owns_model(who.tenant, model):
        await state.quotas.check_models(who)
    new = await state.catalog.add_model(who.tenant, model, root=root, blob=blob, name=name)
    try:
        if new:
            await state.quotas.check_models(who, 0)
        yield
    except BaseException:
        if new:
            with anyio.CancelScope(shield=True):
                await state.catalog.remove_model(who.tenant, model)
        raise


async def submit_build(
    state: AppState, principal: Principal, model: str, watchers: list[dict[str, str]]
) -> bool:
    """Queue the build of a model unless it is built, known to fail, or being built."""
    record = JobRecord(
        id=build_job(model),
        kind="build",
        tenant=principal.tenant,
        model=model,
        request_id=current_request_id(),
        trace=current_trace(),
        watchers=watchers,
    )
    if await state.objects.aexists(layout.solved(model)):
        await tell_ready(state, record)
        return False
    # A job that was ready and whose graph is gone: nobody owned the model for a while.
    return await submit(state, record, restart=("cancelled", "ready"))


async def has_graph(state: AppState, model: str) -> bool:
    """Whether the graph of a model is stored, and its facts."""
    return await state.objects.aexists(layout.solved(model)) and await state.objects.aexists(
        layout.facts(model)
    )


async def manifest_of(state: AppState, tenant: str, model: str) -> dict[str, Any]:
    """Return what a model is made of. Raises ``NotFound`` where the tenant has no such model."""
    await state.catalog.require_model(tenant, model)
    manifest = await _manifest(state, model)
    if manifest is None:
        raise unknown_model(model)
    return manifest


async def view(state: AppState, tenant: str, model: str) -> dict[str, Any]:
    """Return a model as ``GET /v1/models/{id}`` shows it."""
    manifest = await manifest_of(state, tenant, model)
    entry = await state.catalog.entry(tenant, model)
    if entry is None:
        raise unknown_model(model)
    record = None if manifest.get("parent") else await find_job(state, build_job(model))
    if record is not None:
        facts, fields = record.result, state_fields(seen_by(record, tenant, entry.added_at))
    else:
        fields, facts = await _stored_state(state, tenant, manifest)
    facts = facts or {}
    weightless = facts.get("weightless", manifest.get("weightless"))
    attached = weightless and await state.catalog.held(tenant, root_of(manifest), layout.WEIGHTS)
    message = await waiting_message(state, fields["state"])
    return assemble(manifest, facts, fields, tenant, entry, bool(attached), message)


def state_fields(record: JobRecord) -> dict[str, Any]:
    """The part of a view that a build's job tells."""
    return {
        "state": record.state,
        "stage": record.stage,
        "percent": record.percent,
        "problem": record.problem,
    }


READY: dict[str, Any] = {"state": "ready", "stage": "ready", "percent": 100.0, "problem": None}


def assemble(
    manifest: dict[str, Any],
    facts: dict[str, Any],
    fields: dict[str, Any],
    tenant: str,
    entry: Entry,
    attached: bool,
    message: str | None,
) -> dict[str, Any]:
    """Put a view together. ``attached``: weights were added to a model that came without."""
    weightless = facts.get("weightless", manifest.get("weightless"))
    return {
        "id": manifest["id"],
        "name": entry.name,
        "note": entry.note,
        "tags": list(entry.tags),
        "revision": entry.revision,
        "owner": tenant,
        **fields,
        "format": manifest["format"],
        "blob": manifest.get("blob"),
        "size": manifest["size"],
        "weightless": weightless,
        "has_weights": None if weightless is None else attached or not weightless,
        "inputs": facts.get("inputs") or manifest["inputs"],
        "outputs": facts.get("outputs"),
        "created_at": entry.added_at,
        "engine": manifest["engine"],
        "job": None if manifest.get("parent") else build_job(manifest["id"]),
        "parent": manifest.get("parent"),
        "counts": {
            key: facts[key]
            for key in ("nodes", "operators", "modules", "groups", "params", "flops")
            if key in facts
        }
        or None,
        "message": message,
        "notes": facts.get("notes"),
        "warnings": facts.get("warnings") or [],
    }


async def remove(state: AppState, tenant: str, model: str) -> None:
    """Take a model from a tenant with all that the tenant added, and end its jobs about it."""
    # Not its manifest: a model whose upload was cut off half-way can be removed too.
    await state.catalog.require_model(tenant, model)

    def jobs() -> list[JobRecord]:
        build = state.board.get(build_job(model))
        own = [record for record in state.board.newest(tenant) if record.model == model]
        return own if build is None else [build, *own]

    def leave(records: list[JobRecord]) -> None:
        for record in records:
            if not record.ended:
                state.board.leave(record, tenant)

    try:
        records = await anyio.to_thread.run_sync(jobs)
        async with state.catalog.changing(tenant, model):
            await state.catalog.remove_model(tenant, model)
        await anyio.to_thread.run_sync(leave, records)
    except REDIS_ERRORS as error:
        raise unavailable(error) from error


async def graph_of(state: AppState, tenant: str, model: str) -> CachedGraph:
    """Return a model's graph. Raises a ``Conflict`` that says why there is none yet, or none at
    all."""
    await state.catalog.require_model(tenant, model)
    held = state.graphs.get(model)
    if held is not None:
        return held

    async def read() -> bytes:
        return await _graph_bytes(state, tenant, model)

    return await state.graphs.load(model, read)


async def _graph_bytes(state: AppState, tenant: str, model: str) -> bytes:
    try:
        data = await state.redis.getex(state.keys.graph(model), ex=state.settings.graph_ttl)
    except REDIS_ERRORS:
        data = None
    if data is not None:
        return bytes(data)
    data = await state.objects.aget(layout.solved(model))
    if data is None and await state.objects.arecover(layout.solved(model)):
        data = await state.objects.aget(layout.solved(model))
    if data is None:
        raise await not_ready(state, tenant, model)
    with contextlib.suppress(*REDIS_ERRORS):
        await state.redis.set(state.keys.graph(model), data, ex=state.settings.graph_ttl)
    return data


async def not_ready(state: AppState, tenant: str, model: str) -> Conflict:
    """The problem that says why a model has no graph."""
    shown = await view(state, tenant, model)
    if shown["state"] == "failed":
        problem = shown["problem"] or {}
        return Conflict(
            f"the model has no graph, since its build failed: {problem.get('detail', '')}",
            slug="model-failed",
            title="The model's graph could not be built",
            model=model,
            cause=problem,
        )
    if shown["state"] == "cancelled":
        return Conflict(
            "the build of this model was cancelled; upload it again to start over",
            slug="model-cancelled",
            model=model,
        )
    detail = f"the model's graph is not built yet ({shown['stage']}, {shown['percent']:.0f} %)"
    return Conflict(
        f"{detail}; {shown['message'] or 'ask again in a moment, or follow its events'}",
        slug="model-not-ready",
        title="The model's graph is not built yet",
        headers={"Retry-After": "1"},
        model=model,
        state=shown["state"],
        stage=shown["stage"],
        percent=shown["percent"],
    )


async def derive(
    state: AppState, principal: Principal, parent: str, body: Derive
) -> dict[str, Any]:
    """Register what is left of ``parent`` after a cut: its graph is sliced, not rebuilt."""
    manifest = await manifest_of(state, principal.tenant, parent)
    cached = await graph_of(state, principal.tenant, parent)
    result = await anyio.to_thread.run_sync(fitting_result, cached.graph, body.result, parent)
    if result is None:
        raise InvalidRequest("there is no result, so there is nothing to derive")
    identifier = derived_model_id(parent, result)
    async with _added(
        state,
        principal,
        identifier,
        root=root_of(manifest),
        blob=manifest.get("blob"),
        name=body.name,
    ):
        if not (
            await has_graph(state, identifier)
            and await state.objects.aexists(layout.manifest(identifier))
        ):
            graph = await anyio.to_thread.run_sync(cached.graph.derive, result)
            data = await anyio.to_thread.run_sync(graph.to_bytes)
            parent_view = await view(state, principal.tenant, parent)
            derived = {
                "id": identifier,
                "parent": parent,
                "root": root_of(manifest),
                "cuts": [*manifest.get("cuts", []), result.to_dict()],
                "blob": manifest.get("blob"),
                "size": manifest["size"],
                "format": manifest["format"],
                "inputs": manifest["inputs"],
                "weightless": parent_view["weightless"],
                "engine": engine_version(),
            }
            facts = {
                "nodes": len(graph.nodes),
                "operators": len(graph.operators),
                "modules": len(graph.modules),
                "groups": await anyio.to_thread.run_sync(lambda: len(graph.groups())),
                "warnings": unread_warnings(graph.unread),
                "params": graph.params(),
                "flops": graph.flops(),
                "weightless": parent_view["weightless"],
                "inputs": [graph.spec(item).to_dict() for item in graph.inputs],
                "outputs": [graph.spec(item).to_dict() for item in graph.outputs],
            }
            await state.objects.aput_json(layout.manifest(identifier), derived)
            await state.objects.aput_json(layout.facts(identifier), facts)
            await state.objects.aput(layout.solved(identifier), data)
            state.graphs.put(identifier, graph)
        if manifest.get("blob"):
            await require_blob(state, str(manifest["blob"]))
    return await view(state, principal.tenant, identifier)


async def weights_source(state: AppState, tenant: str, manifest: dict[str, Any]) -> tuple[str, str]:
    """Return the blob with a model's weights and its format.

    Raises a ``Conflict`` that tells how to add them where the model came without.
    """
    root = root_of(manifest)
    attached = await state.catalog.held(tenant, root, layout.WEIGHTS)
    if attached is not None:
        return attached["blob"], attached["format"]
    shown = await view(state, tenant, manifest["id"])
    if shown["weightless"]:
        raise Conflict(
            "the model was uploaded without its weights, which this needs; send the whole "
            "ONNX file to "
            f"POST /v1/models/{root}/weights, then ask again",
            slug="weights-required",
            title="The model's weights are needed",
            model=root,
            add_weights=f"/v1/models/{root}/weights",
        )
    if shown["state"] != "ready":
        raise await not_ready(state, tenant, manifest["id"])
    return manifest["blob"], manifest["format"]


def root_of(manifest: dict[str, Any]) -> str:
    """The uploaded model at the beginning of a model's lineage."""
    return str(manifest.get("root", manifest["id"]))


async def _manifest(state: AppState, model: str) -> dict[str, Any] | None:
    key = state.keys.manifest(model)
    try:
        cached = await state.redis.get(key)
    except REDIS_ERRORS:
        cached = None
    if cached is not None:
        manifest: dict[str, Any] = json.loads(cached)
        return manifest
    stored: dict[str, Any] | None = await state.objects.aget_json(layout.manifest(model))
    if stored is None and await state.objects.arecover(layout.manifest(model)):
        stored = await state.objects.aget_json(layout.manifest(model))
    if stored is not None:
        with contextlib.suppress(*REDIS_ERRORS):
            await state.redis.set(key, json.dumps(stored), ex=state.settings.result_ttl)
    return stored


async def _stored_state(
    state: AppState, tenant: str, manifest: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The state of a model whose job Redis does not know: it ended long ago, or Redis is new."""
    model, derived = manifest["id"], bool(manifest.get("parent"))
    if derived and not await has_graph(state, model):
        await state.objects.arecover(layout.facts(model))
        await state.objects.arecover(layout.solved(model))
    facts = await state.objects.aget_json(layout.facts(model))
    if facts is not None and await state.objects.aexists(layout.solved(model)):
        with contextlib.suppress(*REDIS_ERRORS):
            await state.redis.set(
                state.keys.facts(model), json.dumps(facts), ex=state.settings.result_ttl
            )
        return dict(READY), facts
    problem = await state.objects.aget_json(layout.failure(model))
    if derived:
        # Its file would build the graph of the model that it came from.
        problem = Conflict(
            "the graph of this derived model was removed; derive it again", slug="derived-gone"
        ).to_dict()
    if problem is not None:
        failed = {"state": "failed", "stage": "failed", "percent": 0.0, "problem": problem}
        return failed, None
    await submit_build(state, Principal(tenant=tenant), model, [])
    return {"state": "queued", "stage": "queued", "percent": 0.0, "problem": None}, None
