"""Puts received bytes into the object store under their sha256."""

from __future__ import annotations

from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.ingest import StagedFile
from torchpruner_service.api.quotas import QuotaExceeded
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.storage import layout


async def store_blob(
    state: AppState, who: Principal, staged: StagedFile, *, upload: str | None = None
) -> None:
    """Put a received file into the object store, unless it is there, as this tenant's.

    ``upload`` is the resumable upload that it came by. Raises ``QuotaExceeded``.
    """
    key = layout.blob(staged.digest)
    new = await state.catalog.blob_size(who.tenant, staged.digest) is None
    if new:
        await state.quotas.check_bytes(who, staged.size, upload=upload)
    # The owner first: what has none may be collected at any moment, also right after it was seen.
    await state.catalog.add_blob(who.tenant, staged.digest, staged.size)
    if await state.objects.asize(key) != staged.size:
        await state.objects.aput_file(key, staged.path)
    if new:
        try:
            await state.quotas.check_bytes(who, 0, upload=upload)
        except QuotaExceeded:
            await state.catalog.remove_blob(who.tenant, staged.digest)
            raise
