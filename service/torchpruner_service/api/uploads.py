"""Resumable uploads: parts at known offsets, joined into a blob when all have arrived.

The parts are objects of their own, so any API process takes the next one and a restart loses none.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect

from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.blob_storing import store_blob
from torchpruner_service.api.ingest import check_digest, stage
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.identity import short
from torchpruner_service.problems import Conflict, InvalidRequest, NotFound
from torchpruner_service.storage import layout


async def start_upload(
    state: AppState, who: Principal, length: int, sha256: str | None
) -> dict[str, Any]:
    """Begin an upload of ``length`` bytes."""
    identifier = "u" + short(secrets.token_bytes(20))
    facts = {
        "id": identifier,
        "tenant": who.tenant,
        "length": length,
        "sha256": sha256,
        "created_at": time.time(),
        "blob": None,
    }
    await state.objects.aput_json(layout.upload(identifier), facts)
    return await upload_view(state, facts)


async def find_upload(state: AppState, who: Principal, identifier: str) -> dict[str, Any]:
    """Return the facts of an upload. Raises ``NotFound`` for another tenant's as for none."""
    facts: dict[str, Any] | None = await state.objects.aget_json(layout.upload(identifier))
    if facts is None or facts["tenant"] != who.tenant:
        raise NotFound(f"there is no upload {identifier}", slug="unknown-upload", upload=identifier)
    return facts


async def upload_view(state: AppState, facts: dict[str, Any]) -> dict[str, Any]:
    offset = (
        facts["length"] if facts["blob"] else sum(size for _, size in await _parts(state, facts))
    )
    return {
        "id": facts["id"],
        "length": facts["length"],
        "offset": offset,
        "complete": facts["blob"] is not None,
        "sha256": facts["blob"] or facts["sha256"],
    }


async def append(
    state: AppState,
    who: Principal,
    facts: dict[str, Any],
    offset: int,
    chunks: AsyncIterator[bytes],
) -> dict[str, Any]:
    """Add the bytes at ``offset``. Bytes that arrived before a connection broke are kept.

    Raises a ``Conflict`` with the right offset where ``offset`` is another.
    """
    shown = await upload_view(state, facts)
    if offset != shown["offset"] or shown["complete"]:
        raise Conflict(
            f"the upload has {shown['offset']} of {shown['length']} bytes; go on from there",
            slug="offset-mismatch",
            headers={"Upload-Offset": str(shown["offset"])},
            expected=shown["offset"],
            received=offset,
        )
    settings = state.settings
    room = facts["length"] - offset
    kept = _what_arrives(chunks)
    staged = await stage(kept, settings.scratch_dir, room, settings.upload_idle_timeout)
    with staged:
        if staged.size:
            await state.objects.aput_file(layout.upload_part(facts["id"], offset), staged.path)
    if offset + staged.size == facts["length"]:
        await _join(state, who, facts)
    return await upload_view(state, facts)


async def finished_upload(state: AppState, who: Principal, identifier: str) -> str:
    """Return the sha256 of a complete upload. Raises a ``Conflict`` for one that is not."""
    facts = await find_upload(state, who, identifier)
    if facts["blob"] is None:
        shown = await upload_view(state, facts)
        raise Conflict(
            f"the upload has {shown['offset']} of {shown['length']} bytes; send the rest first",
            slug="upload-incomplete",
            offset=shown["offset"],
            length=shown["length"],
        )
    return str(facts["blob"])


async def remove_upload(state: AppState, facts: dict[str, Any]) -> None:
    """Forget an upload and its parts; a blob that it became stays."""
    for key, _ in await _parts(state, facts):
        await state.objects.adelete(key)
    await state.objects.adelete(layout.upload(facts["id"]))


async def _join(state: AppState, who: Principal, facts: dict[str, Any]) -> None:
    parts = await _parts(state, facts)

    async def whole() -> AsyncIterator[bytes]:
        for key, size in parts:
            async for chunk in state.objects.astream(key, 0, size):
                yield bytes(chunk)

    settings = state.settings
    staged = await stage(whole(), settings.scratch_dir, facts["length"], 3600.0)
    with staged:
        try:
            check_digest(facts["sha256"], staged.digest)
        except InvalidRequest:
            await remove_upload(state, facts)
            raise
        await store_blob(state, who, staged)
    facts["blob"] = staged.digest
    await state.objects.aput_json(layout.upload(facts["id"]), facts)
    for key, _ in parts:
        await state.objects.adelete(key)


async def _parts(state: AppState, facts: dict[str, Any]) -> list[tuple[str, int]]:
    """The parts that follow each other from the start, as ``(key, size)``."""
    keys = sorted(await state.objects.akeys(layout.upload_parts(facts["id"])))
    parts, offset = [], 0
    for key in keys:
        if int(key.rpartition("/")[2]) != offset:
            break
        size = await state.objects.asize(key) or 0
        parts.append((key, size))
        offset += size
    return parts


async def _what_arrives(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """End quietly where the sender's connection breaks, so that what came is kept."""
    try:
        async for chunk in chunks:
            yield chunk
    except ClientDisconnect:
        return
