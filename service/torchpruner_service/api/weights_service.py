"""Takes the whole file of a weightless model and has a worker compare the two."""

from __future__ import annotations

import anyio.to_thread
from fastapi import Request

from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.blob_storing import store_blob
from torchpruner_service.api.ingest import check_digest, expected_digest, stage
from torchpruner_service.api.jobs_service import find_job, submit
from torchpruner_service.api.models_service import manifest_of, view
from torchpruner_service.api.sniffing import sniff_file
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.identity import content_id
from torchpruner_service.observability.logs import current_request_id
from torchpruner_service.observability.tracing import current_trace
from torchpruner_service.problems import Conflict, InvalidUpload
from torchpruner_service.state.job_record import JobRecord


async def attach_weights(
    request: Request, state: AppState, who: Principal, model: str, content_digest: str | None
) -> JobRecord:
    """Receive the file and queue the comparison; return its job.

    Raises a ``Conflict`` where the model was not uploaded weightless.
    """
    manifest = await manifest_of(state, who.tenant, model)
    if manifest.get("parent"):
        raise Conflict(
            f"a derived model has the weights of the model it came from; add them to "
            f"{manifest['root']}",
            slug="derived-model",
            model=manifest["root"],
        )
    shown = await view(state, who.tenant, model)
    if shown["state"] == "ready" and not shown["weightless"]:
        raise Conflict(
            "the model was uploaded with its weights", slug="weights-present", model=model
        )
    settings = state.settings
    staged = await stage(
        state.quotas.within(who, request.stream()),
        settings.scratch_dir,
        settings.max_upload_bytes,
        settings.upload_idle_timeout,
    )
    with staged:
        check_digest(expected_digest(content_digest), staged.digest)
        form = await anyio.to_thread.run_sync(sniff_file, staged.path, settings.max_unpacked_bytes)
        if form != "onnx":
            raise InvalidUpload(
                f"the weights of a weightless model come as its whole ONNX file, not as {form}"
            )
        await store_blob(state, who, staged)
        record = JobRecord(
            id=f"attach-{model}-{content_id('attach', who.tenant, staged.digest)}",
            kind="attach",
            tenant=who.tenant,
            model=model,
            request={"blob": staged.digest},
            request_id=current_request_id(),
            trace=current_trace(),
        )
    await submit(state, record)
    return await find_job(state, record.id) or record
