"""How much a tenant may keep: models, derived ones included, and bytes.

Bytes are those of files that the tenant has proven to hold, of files made for it (as large as what
they are made from), of its plans, saved cuts and measurements, and of resumable uploads that have
begun, by their announced length. Each is
checked where it is added, whichever way it came, and once more after it was added, so that requests
at the same time cannot pass together.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Any

from torchpruner_service.api.catalog import Catalog
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.problems import RateLimited
from torchpruner_service.settings import Settings
from torchpruner_service.storage import layout
from torchpruner_service.storage.objects import Objects

WHAT_TO_DO = (
    "delete models, artifacts, plans or saved cuts, files that no model uses (GET /v1/blobs) or uploads "
    "that have not ended (GET /v1/uploads)"
)


class QuotaExceeded(RateLimited):
    slug = "quota-exceeded"
    title = "The quota is used up"


@dataclass(frozen=True, slots=True)
class Quotas:
    """The limits of one deployment; a key may carry its own. 0 is no limit."""

    catalog: Catalog
    objects: Objects
    settings: Settings

    async def check_models(self, who: Principal, more: int = 1) -> None:
        """Raise ``QuotaExceeded`` where ``who`` may not have ``more`` models than now."""
        limit = _limit(who.quota_models, self.settings.quota_models)
        if not limit:
            return
        used = len(await self.catalog.models(who.tenant))
        if used + more > limit:
            raise _exceeded(
                f"this key may keep {limit} models and has {used}, derived ones included; delete "
                "some first",
                limit,
                used,
            )

    async def check_bytes(self, who: Principal, more: int, *, upload: str | None = None) -> None:
        """Raise ``QuotaExceeded`` where ``who`` may not have ``more`` bytes than now.

        ``upload`` is a resumable upload that has become one of the files, and counts no more.
        """
        room = await self.room(who, upload=upload)
        if room is not None and more > room:
            limit = _limit(who.quota_bytes, self.settings.quota_bytes)
            used = limit - room
            raise _exceeded(
                f"this key may keep {limit} bytes of files and has {used}; {WHAT_TO_DO}",
                limit,
                used,
            )

    async def room(self, who: Principal, *, upload: str | None = None) -> int | None:
        """How many bytes ``who`` may add: negative where there are too many, ``None``: no limit."""
        limit = _limit(who.quota_bytes, self.settings.quota_bytes)
        if not limit:
            return None
        files = (await self.catalog.blobs(who.tenant)).values()
        made = (await self.catalog.artifacts(who.tenant)).values()
        used = sum(int(facts.get("size", 0)) for facts in (*files, *made))
        for facts in await self.open_uploads(who.tenant):
            if facts["id"] != upload:
                used += int(facts["length"])
        for key, size in await self.objects.akeys_with_sizes(layout.all_holdings(who.tenant)):
            if key.split("/")[4] in layout.MADE_BY_HAND:
                used += size
        return limit - used

    async def within(self, who: Principal, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """Yield ``chunks``. Raises ``QuotaExceeded`` as soon as they are more than ``who`` may
        keep, whatever length was announced."""
        room = await self.room(who)
        received = 0
        async for chunk in chunks:
            received += len(chunk)
            if room is not None and received > room:
                await self.check_bytes(who, received)
                room = await self.room(who)
            yield chunk

    async def open_uploads(self, tenant: str) -> list[dict[str, Any]]:
        """The resumable uploads of a tenant that have not become files, oldest first."""
        found = []
        for key in await self.objects.akeys(layout.uploads(tenant)):
            if key.endswith("/facts.json"):
                facts = await self.objects.aget_json(key)
                if facts is not None and facts["blob"] is None:
                    found.append(facts)
        return sorted(found, key=lambda facts: float(facts["created_at"]))


def _exceeded(detail: str, limit: int, used: int) -> QuotaExceeded:
    return QuotaExceeded(detail, headers={"Retry-After": "3600"}, limit=limit, used=used)


def _limit(own: int | None, general: int) -> int:
    return general if own is None else own
