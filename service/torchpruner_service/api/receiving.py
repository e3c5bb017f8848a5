"""From a request's body to a registered model, in whichever of the three forms it came."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import Request
from pydantic import ValidationError

from torchpruner_core.cut_result import TensorSpec
from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.blob_storing import store_blob
from torchpruner_service.api.ingest import StagedFile, check_digest, expected_digest, stage
from torchpruner_service.api.input_specs import check_sizes, parse_inputs, to_specs
from torchpruner_service.api.models_service import register, require_blob
from torchpruner_service.api.multipart import MultipartFile
from torchpruner_service.api.schemas import KnownContent
from torchpruner_service.api.sniffing import sniff_file
from torchpruner_service.api.uploads import finished_upload
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.observability.metrics import BYTES_IN
from torchpruner_service.problems import InvalidRequest, NotFound, TooLarge
from torchpruner_service.storage import layout

_BINARY = {"schema": {"type": "string", "format": "binary"}}

UPLOAD_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/octet-stream": _BINARY,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    "inputs": {"type": "string", "description": "As the query parameter"},
                    "name": {"type": "string", "maxLength": 200},
                },
            }
        },
        "application/json": {
            "schema": {"$ref": "#/components/schemas/KnownContent"},
            "examples": {
                "known": {
                    "summary": "A file uploaded before",
                    "value": {
                        "blob": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                        "inputs": [{"name": "x", "shape": [1, 3, 224, 224], "dtype": "float32"}],
                    },
                }
            },
        },
    },
}

MAX_JSON = 1 << 20


async def receive_model(
    request: Request,
    state: AppState,
    who: Principal,
    *,
    inputs: str | None,
    short_inputs: list[str],
    name: str | None,
    content_digest: str | None,
    watchers: list[dict[str, str]],
) -> tuple[dict[str, Any], bool]:
    """Store a model and have its graph built; return its view and whether a build was started."""
    content_type = request.headers.get("content-type", "").lower()
    announced = expected_digest(content_digest)
    specs = parse_inputs(inputs, short_inputs)
    check_sizes(specs, state.settings.max_tensor_bytes)
    if content_type.startswith("application/json"):
        return await _known(request, state, who, specs, name, watchers)
    await state.quotas.check_models(who)
    length = _announced_length(request, state.settings.max_upload_bytes)
    await state.quotas.check_bytes(who, length)
    if content_type.startswith("multipart/form-data"):
        form = MultipartFile(request.stream(), request.headers["content-type"])
        staged = await _stage(state, who, form)
        with staged:
            if form.fields.get("inputs"):
                specs = parse_inputs(form.fields["inputs"], [])
                check_sizes(specs, state.settings.max_tensor_bytes)
            return await _keep(
                state, who, staged, announced, specs, name or form.fields.get("name"), watchers
            )
    with await _stage(state, who, request.stream()) as staged:
        return await _keep(state, who, staged, announced, specs, name, watchers)


async def _stage(state: AppState, who: Principal, chunks: AsyncIterable[bytes]) -> StagedFile:
    settings = state.settings
    staged = await stage(
        state.quotas.within(who, chunks),
        settings.scratch_dir,
        settings.max_upload_bytes,
        settings.upload_idle_timeout,
    )
    BYTES_IN.inc(staged.size)
    return staged


async def _keep(
    state: AppState,
    who: Principal,
    staged: StagedFile,
    announced: str | None,
    specs: list[TensorSpec],
    name: str | None,
    watchers: list[dict[str, str]],
) -> tuple[dict[str, Any], bool]:
    check_digest(announced, staged.digest)
    form = await anyio.to_thread.run_sync(
        sniff_file, staged.path, state.settings.max_unpacked_bytes
    )
    check_inputs_given(form, specs)
    await store_blob(state, who, staged)
    return await register(
        state,
        who,
        blob=staged.digest,
        size=staged.size,
        form=form,
        inputs=specs,
        name=name,
        watchers=watchers,
    )


async def _known(
    request: Request,
    state: AppState,
    who: Principal,
    specs: list[TensorSpec],
    name: str | None,
    watchers: list[dict[str, str]],
) -> tuple[dict[str, Any], bool]:
    body = await _known_content(request)
    specs = to_specs(body.inputs) if body.inputs else specs
    check_sizes(specs, state.settings.max_tensor_bytes)
    if body.upload:
        digest = await finished_upload(state, who, body.upload)
    else:
        digest = (body.blob or "").removeprefix("sha256:")
    size = await state.catalog.blob_size(who.tenant, digest)
    if size is None:
        raise NotFound(
            f"the file {digest} is not here; upload it", slug="unknown-blob", blob=digest
        )
    form = await _form_of(state, digest)
    check_inputs_given(form, specs)
    return await register(
        state,
        who,
        blob=digest,
        size=size,
        form=form,
        inputs=specs,
        name=body.name or name,
        watchers=watchers,
    )


async def _known_content(request: Request) -> KnownContent:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_JSON:
            raise TooLarge(f"a JSON body may have {MAX_JSON} bytes; send a file as octets")
    try:
        body = KnownContent.model_validate_json(bytes(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise InvalidRequest(f"{where}: {first['msg']}", at=where) from error
    if (body.blob is None) == (body.upload is None):
        raise InvalidRequest("give either the blob's sha256 or the id of a finished upload")
    return body


async def _form_of(state: AppState, digest: str) -> str:
    """The format of a stored blob; noted beside it once it has been looked at."""
    key = f"{layout.blob(digest)}.format"
    noted = await state.objects.aget(key)
    if noted is not None:
        return noted.decode()
    await require_blob(state, digest)
    path = state.objects.local_path(layout.blob(digest))

    def look() -> str:
        if path is not None:
            return sniff_file(path, state.settings.max_unpacked_bytes)
        # A file of its own: others may ask for the same blob at the same time.
        state.settings.scratch_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=state.settings.scratch_dir, prefix="sniff-") as folder:
            copy = Path(folder) / "blob"
            state.objects.fetch(layout.blob(digest), copy)
            return sniff_file(copy, state.settings.max_unpacked_bytes)

    form = await anyio.to_thread.run_sync(look)
    await state.objects.aput(key, form.encode())
    return form


def check_inputs_given(form: str, specs: list[TensorSpec]) -> None:
    """Raise where a TorchScript file came without the shapes it cannot know."""
    if form == "torchscript" and not specs:
        raise InvalidRequest(
            "a TorchScript file does not say the shapes of its inputs; add them, for instance "
            "?input=x:1x3x224x224:float32",
            slug="inputs-required",
            title="The model's inputs are needed",
        )


def _announced_length(request: Request, limit: int) -> int:
    """How many bytes the body is said to have; 0 where that is not said."""
    text = request.headers.get("content-length", "")
    length = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
    if length > limit:
        raise TooLarge(f"the file has {length} bytes; this service takes {limit}", limit=limit)
    return length
