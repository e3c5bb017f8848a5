"""Files made from models: asked for, found again, described."""

from __future__ import annotations

from typing import Any

import anyio.to_thread

from torchpruner_core.cut_result import CutResult
from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.audit_trail import note
from torchpruner_service.api.cut_results import fitting_result
from torchpruner_service.api.jobs_service import find_job, submit, tell_ready, waiting_message
from torchpruner_service.api.models_service import graph_of, manifest_of, weights_source
from torchpruner_service.api.schemas import Result
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.identity import artifact_id
from torchpruner_service.observability.logs import current_request_id
from torchpruner_service.observability.tracing import current_trace
from torchpruner_service.problems import NotFound
from torchpruner_service.state.job_record import JobRecord, Kind
from torchpruner_service.storage import layout


async def request_artifact(
    state: AppState,
    who: Principal,
    model: str,
    kind: Kind,
    form: str,
    body: Result | None,
    watchers: list[dict[str, str]],
) -> dict[str, Any]:
    """Have a file made unless it is made or being made; return its view.

    Raises a ``Conflict`` where the model has no weights here, or the result in ``body`` does not
    fit it, and ``QuotaExceeded``.
    """
    request, result = await source_request(state, who.tenant, model, body)
    identifier = artifact_id(who.tenant, f"{kind}/{form}", model, request["blob"], result)
    job = job_of(identifier, kind)
    # What it will take is not known yet; no more than what it is made from, or little more.
    size = await state.objects.asize(layout.blob(request["blob"])) or 0
    if not await state.catalog.owns_artifact(who.tenant, identifier):
        await state.quotas.check_bytes(who, size)
    await state.catalog.add_artifact(who.tenant, identifier, model, size)
    record = JobRecord(
        id=job,
        kind=kind,
        tenant=who.tenant,
        model=model,
        request={**request, "artifact": identifier, "format": form},
        request_id=current_request_id(),
        trace=current_trace(),
        watchers=watchers,
    )
    if await state.objects.aexists(
        layout.artifact_facts(identifier)
    ) and await state.objects.aexists(layout.artifact(identifier)):
        await tell_ready(state, record)
    else:
        # A job that was ready and whose file is gone: the tenant removed it.
        await submit(state, record, restart=("cancelled", "ready"))
    return await artifact_view(state, identifier)


async def source_request(
    state: AppState, tenant: str, model: str, body: Result | None
) -> tuple[dict[str, Any], CutResult | None]:
    """What a worker needs to make something of a model with its weights, and the cut that a client
    sent as the engine has it."""
    manifest = await manifest_of(state, tenant, model)
    cached = await graph_of(state, tenant, model)
    result = await anyio.to_thread.run_sync(fitting_result, cached.graph, body, model)
    blob, form = await weights_source(state, tenant, manifest)
    cuts = [*manifest.get("cuts", []), *([result.to_dict()] if result is not None else [])]
    request = {"blob": blob, "source_format": form, "inputs": manifest["inputs"], "cuts": cuts}
    return request, result


async def remove_artifact(state: AppState, tenant: str, artifact: str) -> None:
    """Take a file from a tenant, and end the job that makes it."""
    note(model=((await state.catalog.artifacts(tenant)).get(artifact) or {}).get("model"))
    for kind in ("weights", "onnx"):
        record = await find_job(state, job_of(artifact, kind))
        if record is not None and not record.ended:
            await anyio.to_thread.run_sync(state.board.leave, record, tenant)
    await state.catalog.remove_artifact(tenant, artifact)


def job_of(artifact: str, kind: str) -> str:
    """The id of the job that makes an artifact."""
    return f"{kind}-{artifact}"


async def artifact_view(state: AppState, artifact: str) -> dict[str, Any]:
    """Return an artifact as ``GET /v1/artifacts/{id}`` shows it."""
    facts = await state.objects.aget_json(layout.artifact_facts(artifact))
    if facts is not None:
        return {
            "id": artifact,
            "model": facts["model"],
            "state": "ready",
            "stage": "ready",
            "percent": 100.0,
            "format": facts["format"],
            "job": job_of(artifact, "onnx" if facts["format"] == "onnx" else "weights"),
            "size": facts["size"],
            "sha256": facts["sha256"],
            "content": f"/v1/artifacts/{artifact}/content",
            "warnings": facts.get("warnings") or [],
        }
    for kind in ("weights", "onnx"):
        record = await find_job(state, job_of(artifact, kind))
        if record is not None:
            return {
                "id": artifact,
                "model": record.model,
                "state": record.state,
                "stage": record.stage,
                "percent": record.percent,
                "format": record.request["format"],
                "job": record.id,
                "problem": record.problem,
                "message": await waiting_message(state, record.state),
            }
    for kind in ("weights", "onnx"):
        pending = await state.objects.aget_json(layout.pending(job_of(artifact, kind)))
        if pending is not None:
            # Redis came back empty; the job is on its way back into the queue.
            return {
                "id": artifact,
                "model": pending["model"],
                "state": "queued",
                "stage": "queued",
                "percent": 0.0,
                "format": pending["request"]["format"],
                "job": pending["id"],
            }
    raise NotFound(
        f"artifact {artifact} was never finished; ask for it again", slug="unknown-artifact"
    )
