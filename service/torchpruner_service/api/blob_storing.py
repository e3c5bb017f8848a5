"""Puts received bytes into the object store under their sha256."""

from __future__ import annotations

from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.ingest import StagedFile
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.storage import layout


async def store_blob(state: AppState, who: Principal, staged: StagedFile) -> None:
    """Put a received file into the object store, unless it is there, as this tenant's."""
    key = layout.blob(staged.digest)
    if await state.objects.asize(key) != staged.size:
        await state.objects.aput_file(key, staged.path)
    await state.catalog.add_blob(who.tenant, staged.digest, staged.size)
