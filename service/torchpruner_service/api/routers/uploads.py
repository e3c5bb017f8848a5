"""Resumable uploads, and the question whether a file is here already."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from torchpruner_service.api import schemas
from torchpruner_service.api.access import Reader, State, Writer
from torchpruner_service.api.answers import json_answer
from torchpruner_service.api.audit_trail import Recorded
from torchpruner_service.api.documented import problems
from torchpruner_service.api.paging import Cursor, Limit, page
from torchpruner_service.api.path_ids import Digest, UploadId
from torchpruner_service.api.uploads import (
    append,
    find_upload,
    remove_upload,
    start_upload,
    upload_view,
)
from torchpruner_service.problems import Conflict, NotFound, TooLarge

router = APIRouter(prefix="/v1", tags=["uploads"], route_class=Recorded)

_PART = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get(
    "/blobs",
    response_model=schemas.Page[schemas.BlobView],
    responses=problems(),
    summary="List the files of this tenant, the largest first",
)
async def list_blobs(
    state: State, who: Reader, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """What a quota of bytes counts. A file goes with the last model that is made from it; one that no
    model uses can be removed here."""
    used = await state.catalog.used_blobs(who.tenant)
    files = [
        {
            "sha256": digest,
            "size": facts["size"],
            "added_at": facts["added_at"],
            "in_use": digest in used,
        }
        for digest, facts in (await state.catalog.blobs(who.tenant)).items()
    ]
    files.sort(key=lambda file: (-int(file["size"]), str(file["sha256"])))
    return json_answer(page(files, limit, cursor, lambda file: file))


@router.delete(
    "/blobs/{digest}",
    status_code=204,
    response_class=Response,
    responses=problems(409),
    summary="Remove a file that no model uses",
)
async def delete_blob(state: State, who: Writer, digest: Digest) -> Response:
    if await state.catalog.blob_size(who.tenant, digest) is None:
        raise NotFound(f"the file {digest} is not here", slug="unknown-blob")
    if digest in await state.catalog.used_blobs(who.tenant):
        raise Conflict(
            f"a model is made from the file {digest}; delete the model, and the file goes with it",
            slug="blob-in-use",
            blob=digest,
        )
    await state.catalog.remove_blob(who.tenant, digest)
    return Response(status_code=204)


@router.head(
    "/blobs/{digest}",
    response_class=Response,
    responses=problems(),
    summary="Whether this file is here already",
)
async def head_blob(state: State, who: Reader, digest: Digest) -> Response:
    """200 with its length where this tenant has uploaded the file before; another tenant's files
    look absent. Then POST /v1/models with its sha256 needs no upload."""
    size = await state.catalog.blob_size(who.tenant, digest)
    if size is None:
        raise NotFound(f"the file {digest} is not here; upload it", slug="unknown-blob")
    return Response(headers={"ETag": f'"{digest}"', "Torchpruner-Blob-Length": str(size)})


@router.post(
    "/uploads",
    status_code=201,
    response_model=schemas.UploadView,
    responses=problems(413, 507),
    summary="Start a resumable upload",
)
async def create_upload(state: State, who: Writer, body: schemas.UploadStart) -> Response:
    """Send the parts with PATCH, each with the ``Upload-Offset`` it starts at; after a broken
    connection ask for the offset and go on. Then POST /v1/models with ``{"upload": id}``."""
    if body.length > state.settings.max_upload_bytes:
        raise TooLarge(
            f"the file has {body.length} bytes; this service takes "
            f"{state.settings.max_upload_bytes}",
            limit=state.settings.max_upload_bytes,
        )
    shown = await start_upload(state, who, body.length, body.sha256)
    return json_answer(shown, 201, {"Location": f"/v1/uploads/{shown['id']}", "Upload-Offset": "0"})


@router.get(
    "/uploads",
    response_model=schemas.Page[schemas.UploadView],
    responses=problems(),
    summary="List the uploads that have begun and not ended, oldest first",
)
async def list_uploads(
    state: State, who: Reader, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    shown = page(await state.quotas.open_uploads(who.tenant), limit, cursor, lambda facts: facts)
    items = [await upload_view(state, facts) for facts in shown["items"]]
    return json_answer({**shown, "items": items})


@router.get(
    "/uploads/{upload}",
    response_model=schemas.UploadView,
    responses=problems(),
    summary="How much of an upload has arrived",
)
async def show_upload(state: State, who: Writer, upload: UploadId) -> Response:
    shown = await upload_view(state, await find_upload(state, who, upload))
    return json_answer(shown, headers={"Upload-Offset": str(shown["offset"])})


@router.head(
    "/uploads/{upload}",
    response_class=Response,
    responses=problems(),
    summary="The offset to go on from",
)
async def head_upload(state: State, who: Writer, upload: UploadId) -> Response:
    shown = await upload_view(state, await find_upload(state, who, upload))
    return Response(
        headers={"Upload-Offset": str(shown["offset"]), "Upload-Length": str(shown["length"])}
    )


@router.patch(
    "/uploads/{upload}",
    response_model=schemas.UploadView,
    responses=problems(409, 413, 507),
    openapi_extra=_PART,
    summary="Send the next part",
)
async def append_to_upload(
    request: Request,
    state: State,
    who: Writer,
    upload: UploadId,
    upload_offset: Annotated[int, Header(ge=0, description="Where this part starts")],
) -> Response:
    facts = await find_upload(state, who, upload)
    shown = await append(state, who, facts, upload_offset, request.stream())
    return json_answer(shown, headers={"Upload-Offset": str(shown["offset"])})


@router.delete(
    "/uploads/{upload}",
    status_code=204,
    response_class=Response,
    responses=problems(),
    summary="Forget an upload",
)
async def delete_upload(state: State, who: Writer, upload: UploadId) -> Response:
    await remove_upload(state, await find_upload(state, who, upload))
    return Response(status_code=204)
