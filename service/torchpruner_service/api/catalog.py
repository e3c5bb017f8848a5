"""What a tenant has: which blobs it has proven to hold, which models and artifacts it may see.

Ownership is written to the object store first and indexed in Redis; the index is rebuilt from the
store when Redis has lost it, and the store is asked directly while Redis is away.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any

from torchpruner_service.problems import NotFound, RateLimited
from torchpruner_service.state.keys import Keys
from torchpruner_service.state.redis_clients import REDIS_ERRORS
from torchpruner_service.storage import layout
from torchpruner_service.storage.objects import Objects

INDEX_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Entry:
    """A model as a tenant listed it."""

    model: str
    name: str | None
    added_at: float


class Catalog:
    """Ownership of blobs, models and artifacts, by tenant."""

    def __init__(self, redis: Any, objects: Objects, keys: Keys) -> None:
        self._redis = redis
        self._objects = objects
        self._keys = keys

    async def owns_model(self, tenant: str, model: str) -> bool:
        return await self._owns(
            tenant, self._keys.models(tenant), model, layout.owned_model(tenant, model)
        )

    async def require_model(self, tenant: str, model: str) -> None:
        """Raise ``NotFound`` where ``tenant`` has no such model, whether or not another has."""
        if not await self.owns_model(tenant, model):
            raise NotFound(
                f"there is no model {model}; upload it, or list the models for their ids",
                slug="unknown-model",
                model=model,
            )

    async def owns_artifact(self, tenant: str, artifact: str) -> bool:
        return await self._owns(
            tenant,
            self._keys.artifacts(tenant),
            artifact,
            layout.owned_artifact(tenant, artifact),
        )

    async def blob_size(self, tenant: str, digest: str) -> int | None:
        """The size of a blob that ``tenant`` has proven to hold, else ``None``."""
        if not await self._owns(
            tenant, self._keys.blobs(tenant), digest, layout.owned_blob(tenant, digest)
        ):
            return None
        return await self._objects.asize(layout.blob(digest))

    async def add_blob(self, tenant: str, digest: str, size: int) -> None:
        await self._add(
            tenant,
            self._keys.blobs(tenant),
            digest,
            layout.owned_blob(tenant, digest),
            {"size": size, "added_at": time.time()},
        )

    async def add_artifact(self, tenant: str, artifact: str, model: str) -> None:
        await self._add(
            tenant,
            self._keys.artifacts(tenant),
            artifact,
            layout.owned_artifact(tenant, artifact),
            {"model": model, "added_at": time.time()},
        )

    async def add_model(self, tenant: str, model: str, name: str | None) -> None:
        """Let ``tenant`` see ``model``; a model that it has keeps its place in the list."""
        key = layout.owned_model(tenant, model)
        known = await self._objects.aget_json(key)
        added_at = known["added_at"] if known else time.time()
        facts = {"added_at": added_at, "name": name or (known or {}).get("name")}
        if facts != known:
            await self._add(tenant, self._keys.models(tenant), model, key, facts)

    async def remove_model(self, tenant: str, model: str, blob: str | None) -> None:
        """Take a model from a tenant, and its file where no other model of the tenant has it."""
        await self._objects.adelete(layout.owned_model(tenant, model))
        try:
            await self._redis.hdel(self._keys.models(tenant), model)
            if blob is not None and not await self._uses(tenant, blob):
                await self._objects.adelete(layout.owned_blob(tenant, blob))
                await self._redis.hdel(self._keys.blobs(tenant), blob)
        except REDIS_ERRORS:
            # The index would show a model that is gone: have it read anew.
            await self._forget_index(tenant)

    async def models(self, tenant: str) -> list[Entry]:
        """Every model of ``tenant``, newest first."""
        found = await self._all(tenant, self._keys.models(tenant), f"tenants/{tenant}/models/")
        entries = [
            Entry(model, facts.get("name"), float(facts["added_at"]))
            for model, facts in found.items()
        ]
        return sorted(entries, key=lambda entry: (-entry.added_at, entry.model))

    async def entry(self, tenant: str, model: str) -> Entry | None:
        try:
            data = await self._redis.hget(self._keys.models(tenant), model)
            facts = None if data is None else json.loads(data)
        except REDIS_ERRORS:
            facts = None
        if facts is None:
            facts = await self._objects.aget_json(layout.owned_model(tenant, model))
        return None if facts is None else Entry(model, facts.get("name"), float(facts["added_at"]))

    async def usage(self, tenant: str) -> tuple[int, int]:
        """How many models ``tenant`` has, and the bytes of its blobs."""
        models = await self._all(tenant, self._keys.models(tenant), f"tenants/{tenant}/models/")
        blobs = await self._all(tenant, self._keys.blobs(tenant), f"tenants/{tenant}/blobs/")
        return len(models), sum(int(facts["size"]) for facts in blobs.values())

    async def check_quota(self, tenant: str, models: int, size: int, incoming: int) -> None:
        """Raise where ``tenant`` would exceed a quota (0: none) with ``incoming`` more bytes."""
        if not models and not size:
            return
        used_models, used_bytes = await self.usage(tenant)
        if models and used_models >= models:
            raise QuotaExceeded(
                f"this key may keep {models} models; delete some first",
                headers={"Retry-After": "3600"},
                limit=models,
                used=used_models,
            )
        if size and used_bytes + incoming > size:
            raise QuotaExceeded(
                f"this key may keep {size} bytes of files and has {used_bytes}; delete models "
                f"first",
                headers={"Retry-After": "3600"},
                limit=size,
                used=used_bytes,
            )

    async def _uses(self, tenant: str, blob: str) -> bool:
        for entry in await self.models(tenant):
            manifest = await self._objects.aget_json(layout.manifest(entry.model)) or {}
            if manifest.get("blob") == blob:
                return True
        return False

    async def _owns(self, tenant: str, index: str, item: str, key: str) -> bool:
        try:
            pipe = self._redis.pipeline(transaction=False)
            pipe.hexists(index, item)
            pipe.exists(self._keys.indexed(tenant))
            owned, indexed = await pipe.execute()
            if not indexed:
                await self._build_index(tenant)
                owned = await self._redis.hexists(index, item)
            if owned:
                return True
            # Redis may have lost its last second: what the store has is the truth.
            facts = await self._objects.aget_json(key)
            if facts is None:
                return False
            await self._redis.hset(index, item, json.dumps(facts))
            return True
        except REDIS_ERRORS:
            return await self._objects.aexists(key)

    async def _add(
        self, tenant: str, index: str, item: str, key: str, facts: dict[str, Any]
    ) -> None:
        await self._objects.aput_json(key, facts)
        try:
            await self._redis.hset(index, item, json.dumps(facts))
        except REDIS_ERRORS:
            await self._forget_index(tenant)

    async def _forget_index(self, tenant: str) -> None:
        with contextlib.suppress(*REDIS_ERRORS):
            await self._redis.delete(self._keys.indexed(tenant))

    async def _all(self, tenant: str, index: str, prefix: str) -> dict[str, dict[str, Any]]:
        try:
            if not await self._redis.exists(self._keys.indexed(tenant)):
                await self._build_index(tenant)
            stored = await self._redis.hgetall(index)
            return {item.decode(): json.loads(facts) for item, facts in stored.items()}
        except REDIS_ERRORS:
            return await self._read_index(prefix)

    async def _build_index(self, tenant: str) -> None:
        for folder, index in (
            ("models", self._keys.models(tenant)),
            ("blobs", self._keys.blobs(tenant)),
            ("artifacts", self._keys.artifacts(tenant)),
        ):
            found = await self._read_index(f"tenants/{tenant}/{folder}/")
            pipe = self._redis.pipeline(transaction=True)
            pipe.delete(index)
            if found:
                pipe.hset(index, mapping={key: json.dumps(value) for key, value in found.items()})
            await pipe.execute()
        await self._redis.set(self._keys.indexed(tenant), "1", ex=INDEX_SECONDS)

    async def _read_index(self, prefix: str) -> dict[str, dict[str, Any]]:
        found = {}
        for key in await self._objects.akeys(prefix):
            facts = await self._objects.aget_json(key)
            if facts is not None:
                found[key.rpartition("/")[2]] = facts
        return found


class QuotaExceeded(RateLimited):
    slug = "quota-exceeded"
    title = "The quota is used up"
