"""Resumable uploads: parts at known offsets, joined into a blob when all have arrived.

The parts are objects of their own, so any API process takes the next one and a restart loses none.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect

from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.blob_storing import store_blob
from torchpruner_service.api.ingest import check_digest, stage
from torchpruner_service.api.quotas import QuotaExceeded
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.identity import short
from torchpruner_service.problems import Conflict, InvalidRequest, NotFound, RateLimited
from torchpruner_service.storage import layout


async def start_upload(
    state: AppState, who: Principal, length: int, sha256: str | None
) -> dict[str, Any]:
    """Begin an upload of ``length`` bytes, which count against a quota from now on.

    Raises ``QuotaExceeded``, or ``RateLimited`` where the tenant has too many open.
    """
    limit = state.settings.max_open_uploads
    if len(await state.quotas.open_uploads(who.tenant)) >= limit:
        raise RateLimited(
            f"{limit} uploads have begun and not ended; GET /v1/uploads lists them: end or delete "
            "some first",
            slug="too-many-uploads",
            headers={"Retry-After": "60"},
            limit=limit,
        )
    await state.quotas.check_bytes(who, length)
    identifier = "u" + short(secrets.token_bytes(20))
    facts = {
        "id": identifier,
        "tenant": who.tenant,
        "length": length,
        "sha256": sha256,
        "created_at": time.time(),
        "blob": None,
    }
    await state.objects.aput_json(layout.upload(who.tenant, identifier), facts)
    try:
        await state.quotas.check_bytes(who, 0)
    except QuotaExceeded:
        await remove_upload(state, facts)
        raise
    return await upload_view(state, facts)


async def find_upload(state: AppState, who: Principal, identifier: str) -> dict[str, Any]:
    """Return the facts of an upload. Raises ``NotFound`` for another tenant's as for none."""
    key = layout.upload(who.tenant, identifier)
    facts: dict[str, Any] | None = await state.objects.aget_json(key)
    if facts is None:
        raise NotFound(f"there is no upload {identifier}", slug="unknown-upload", upload=identifier)
    return facts


async def upload_view(state: AppState, facts: dict[str, Any]) -> dict[str, Any]:
    parts = [] if facts["blob"] else await _parts(state, facts)
    offset = facts["length"] if facts["blob"] else sum(part.size for part in parts)
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
            key = layout.upload_part(
                who.tenant, facts["id"], offset, staged.size, secrets.token_hex(8)
            )
            await state.objects.aput_file(key, staged.path)
            parts = await _parts(state, facts)
            end = parts[-1].end if parts else 0
            if end >= offset + staged.size and all(part.key != key for part in parts):
                # Another request at the same offset brought as much, or more.
                await state.objects.adelete(key)
    if offset + staged.size == facts["length"]:
        await _join(state, who, facts)
    return await upload_view(state, await find_upload(state, who, facts["id"]))


async def finished_upload(state: AppState, who: Principal, identifier: str) -> str:
    """Return the sha256 of a complete upload. Raises a ``Conflict`` for one that is not.

    The process that took the last part may have died before it joined them all: then they are joined here.
    """
    facts = await find_upload(state, who, identifier)
    if facts["blob"] is None:
        shown = await upload_view(state, facts)
        if shown["offset"] == shown["length"]:
            await _join(state, who, facts)
            facts = await find_upload(state, who, identifier)
    if facts["blob"] is None:
        raise Conflict(
            f"the upload has {shown['offset']} of {shown['length']} bytes; send the rest first",
            slug="upload-incomplete",
            offset=shown["offset"],
            length=shown["length"],
        )
    return str(facts["blob"])


async def remove_upload(state: AppState, facts: dict[str, Any]) -> None:
    """Forget an upload and its parts; a blob that it became stays."""
    await state.objects.adelete(layout.upload(facts["tenant"], facts["id"]))
    await _remove_parts(state, facts)


async def _join(state: AppState, who: Principal, facts: dict[str, Any]) -> None:
    parts = await _parts(state, facts)

    async def whole() -> AsyncIterator[bytes]:
        for part in parts:
            async for chunk in state.objects.astream(part.key, 0, part.size):
                yield bytes(chunk)

    settings = state.settings
    try:
        staged = await stage(whole(), settings.scratch_dir, facts["length"], 3600.0)
    except KeyError:
        # Another request joined the same parts, and has removed them.
        if (await find_upload(state, who, facts["id"]))["blob"] is None:
            raise
        return
    with staged:
        try:
            check_digest(facts["sha256"], staged.digest)
        except InvalidRequest:
            await remove_upload(state, facts)
            raise
        await store_blob(state, who, staged, upload=facts["id"])
    facts["blob"] = staged.digest
    await state.objects.aput_json(layout.upload(who.tenant, facts["id"]), facts)
    await _remove_parts(state, facts)


async def _remove_parts(state: AppState, facts: dict[str, Any]) -> None:
    for key in await state.objects.akeys(layout.upload_parts(facts["tenant"], facts["id"])):
        await state.objects.adelete(key)


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``[start, end)`` of an upload, in the object ``key``."""

    start: int
    end: int
    key: str

    @property
    def size(self) -> int:
        return self.end - self.start


async def _parts(state: AppState, facts: dict[str, Any]) -> list[Part]:
    """The parts that follow each other from the start and reach furthest.

    Two requests may bring parts that start at the same byte, a late one after others have gone on
    from the first. What follows a part that was acknowledged stays reachable, so the offset that a
    client was told never falls.
    """
    keys = await state.objects.akeys(layout.upload_parts(facts["tenant"], facts["id"]))
    last_at: dict[int, Part | None] = {0: None}
    for part in sorted(map(_part, keys), key=lambda part: (part.start, part.end, part.key)):
        if part.start in last_at:
            last_at.setdefault(part.end, part)
    chain: list[Part] = []
    found = last_at[max(last_at)]
    while found is not None:
        chain.append(found)
        found = last_at[found.start]
    return chain[::-1]


def _part(key: str) -> Part:
    start, size, _ = key.rpartition("/")[2].split("-")
    return Part(int(start), int(start) + int(size), key)


async def _what_arrives(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """End quietly where the sender's connection breaks, so that what came is kept."""
    try:
        async for chunk in chunks:
            yield chunk
    except ClientDisconnect:
        return
