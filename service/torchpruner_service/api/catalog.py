"""What a tenant has, and nothing else: the one place where ownership is written and asked for.

From uploaded bytes alone follow the blob, the graph and the answers to cuts; these are stored once
and shown to every tenant who has proven to hold the bytes. What a tenant adds belongs to (tenant,
model): its name and times in the model's :class:`Entry`, files made from it in the artifacts, and
anything else, such as weights, as a *holding* of some kind. Removing the model removes them all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis.exceptions import LockError

from torchpruner_service.api.tenant_index import Facts, TenantIndex
from torchpruner_service.problems import NotFound, Unavailable
from torchpruner_service.state.keys import Keys
from torchpruner_service.state.redis_clients import REDIS_ERRORS, unavailable
from torchpruner_service.storage import layout
from torchpruner_service.storage.objects import Objects

CHANGE_SECONDS = 10.0
"""How long one change of a model's facts may take, and others wait for it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model as a tenant has it.

    ``root`` is the uploaded model that it was derived from, or the model itself; ``blob`` the root's
    file. Both are ``None`` where the entry was written before they were noted. ``note`` and ``tags``
    are what the tenant wrote about it.
    """

    model: str
    name: str | None
    added_at: float
    root: str | None = None
    blob: str | None = None
    note: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def revision(self) -> str:
        """What name, note and tags are at: the same for the same words."""
        text = json.dumps([self.name, self.note, self.tags], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def unknown_model(model: str) -> NotFound:
    """The same words whether the model is nowhere or another tenant's."""
    return NotFound(
        f"there is no model {model}; upload it, or list the models for their ids",
        slug="unknown-model",
        model=model,
    )


class Catalog:
    """Ownership of blobs, models and what was added to them, by tenant."""

    def __init__(self, redis: Any, objects: Objects, keys: Keys) -> None:
        self._redis = redis
        self._objects = objects
        self._keys = keys
        self._index = TenantIndex(redis, objects, keys)

    # Models

    async def owns_model(self, tenant: str, model: str) -> bool:
        return await self._index.get(tenant, "models", model) is not None

    async def require_model(self, tenant: str, model: str) -> None:
        """Raise ``NotFound`` where ``tenant`` has no such model, whether or not another has."""
        if not await self.owns_model(tenant, model):
            raise unknown_model(model)

    async def add_model(
        self, tenant: str, model: str, *, root: str, blob: str | None, name: str | None
    ) -> bool:
        """Let ``tenant`` see ``model``; return whether it is new to the tenant.

        One that the tenant has keeps its place in the list, and its name where none is given.
        """
        known = await self._objects.aget_json(layout.owned(tenant, "models", model))
        if known is None:
            facts: Facts = {"added_at": time.time(), "name": name, "root": root, "blob": blob}
            await self._index.put(tenant, "models", model, facts)
            return True
        given = {"root": root, "blob": blob} | ({"name": name} if name else {})
        if any(known.get(key) != value for key, value in given.items()):
            await self.describe(tenant, model, given)
        return False

    @contextlib.asynccontextmanager
    async def changing(self, tenant: str, model: str) -> AsyncIterator[None]:
        """Let nobody else read and rewrite what ``tenant`` added to ``model`` within the block.

        Raises ``Unavailable`` where Redis is away, or another change does not end.
        """
        lock = self._redis.lock(
            self._keys.changing(tenant, model),
            timeout=CHANGE_SECONDS,
            sleep=0.02,
            blocking_timeout=CHANGE_SECONDS,
        )
        try:
            held = await lock.acquire()
        except REDIS_ERRORS as error:
            raise unavailable(error) from error
        if not held:
            raise Unavailable("another change of this model is being made; try again in a moment")
        try:
            yield
        finally:
            with contextlib.suppress(LockError, *REDIS_ERRORS):
                await lock.release()

    async def describe(self, tenant: str, model: str, changes: Mapping[str, Any]) -> None:
        """Change facts that ``tenant`` has of ``model``, together with whatever others change.

        Raises ``NotFound``, and ``Unavailable`` where Redis is away.
        """
        async with self.changing(tenant, model):
            await self.describe_held(tenant, model, changes)

    async def describe_held(self, tenant: str, model: str, changes: Mapping[str, Any]) -> None:
        """:meth:`describe`, by who is in :meth:`changing` already."""
        known = await self._objects.aget_json(layout.owned(tenant, "models", model))
        if known is None:
            raise unknown_model(model)
        await self._index.put(tenant, "models", model, {**known, **changes})

    async def remove_model(self, tenant: str, model: str) -> None:
        """Take a model from a tenant with all that the tenant added to it.

        Files and weights that another model of the tenant is made from stay.
        """
        entry = await self.entry(tenant, model)
        await self._index.remove(tenant, "models", model)
        for artifact, facts in (await self._index.all(tenant, "artifacts")).items():
            if facts.get("model") == model:
                await self.remove_artifact(tenant, artifact)
        root = (entry.root if entry else None) or model
        weights = layout.holding(tenant, root, layout.WEIGHTS)
        for key in await self._objects.akeys(layout.holdings(tenant, model)):
            if key != weights:
                await self._objects.adelete(key)
        blobs = {entry.blob} if entry else set()
        if not any((other.root or other.model) == root for other in await self.models(tenant)):
            blobs.add((await self._objects.aget_json(weights) or {}).get("blob"))
            await self._objects.adelete(weights)
        for blob in blobs - await self.used_blobs(tenant):
            if blob is not None:
                await self.remove_blob(tenant, blob)

    async def models(self, tenant: str) -> list[Entry]:
        """Every model of ``tenant``, newest first."""
        found = await self._index.all(tenant, "models")
        entries = [_entry(model, facts) for model, facts in found.items()]
        return sorted(entries, key=lambda entry: (-entry.added_at, entry.model))

    async def entry(self, tenant: str, model: str) -> Entry | None:
        facts = await self._index.get(tenant, "models", model)
        return None if facts is None else _entry(model, facts)

    async def stored_entry(self, tenant: str, model: str) -> Entry | None:
        """:meth:`entry` as the store has it, for whoever is going to change it."""
        facts = await self._objects.aget_json(layout.owned(tenant, "models", model))
        return None if facts is None else _entry(model, facts)

    # What was added to a model

    async def hold(
        self, tenant: str, model: str, kind: str, facts: Facts, item: str = "only"
    ) -> None:
        """Keep something that ``tenant`` added to ``model``, durably."""
        await self._objects.aput_json(layout.holding(tenant, model, kind, item), facts)

    async def held(self, tenant: str, model: str, kind: str, item: str = "only") -> Facts | None:
        """What ``tenant`` added to ``model``, or ``None``; another tenant's looks absent."""
        facts: Facts | None = await self._objects.aget_json(
            layout.holding(tenant, model, kind, item)
        )
        return facts

    async def held_items(self, tenant: str, model: str, kind: str) -> list[str]:
        """The items of one kind that ``tenant`` added to ``model``."""
        folder = f"{layout.holdings(tenant, model)}{kind}/"
        return sorted(key.removeprefix(folder) for key in await self._objects.akeys(folder))

    async def drop(self, tenant: str, model: str, kind: str, item: str = "only") -> None:
        """Remove something that ``tenant`` added to ``model``."""
        await self._objects.adelete(layout.holding(tenant, model, kind, item))

    # Artifacts

    async def owns_artifact(self, tenant: str, artifact: str) -> bool:
        return await self._index.get(tenant, "artifacts", artifact) is not None

    async def add_artifact(self, tenant: str, artifact: str, model: str, size: int) -> None:
        """Let ``tenant`` have a file made from ``model``. ``size`` is what a quota counts for it."""
        if not await self.owns_artifact(tenant, artifact):
            facts = {"model": model, "size": size, "added_at": time.time()}
            await self._index.put(tenant, "artifacts", artifact, facts)

    async def remove_artifact(self, tenant: str, artifact: str) -> None:
        """Take a file from a tenant; its id is the tenant's own, so its content goes too."""
        await self._index.remove(tenant, "artifacts", artifact)
        await self._objects.adelete(layout.artifact_facts(artifact))
        await self._objects.adelete(layout.artifact(artifact))

    async def artifacts(self, tenant: str) -> dict[str, Facts]:
        return await self._index.all(tenant, "artifacts")

    # Blobs

    async def blob_size(self, tenant: str, digest: str) -> int | None:
        """The size of a blob that ``tenant`` has proven to hold, else ``None``."""
        if await self._index.get(tenant, "blobs", digest) is None:
            return None
        return await self._objects.asize(layout.blob(digest))

    async def add_blob(self, tenant: str, digest: str, size: int) -> None:
        facts = {"size": size, "added_at": time.time()}
        await self._index.put(tenant, "blobs", digest, facts)

    async def remove_blob(self, tenant: str, digest: str) -> None:
        await self._index.remove(tenant, "blobs", digest)

    async def blobs(self, tenant: str) -> dict[str, Facts]:
        """The files that ``tenant`` has proven to hold."""
        return await self._index.all(tenant, "blobs")

    async def used_blobs(self, tenant: str) -> set[str]:
        """The files that some model of ``tenant`` is made from, or has its weights from."""
        used = set()
        for entry in await self.models(tenant):
            blob = entry.blob
            if blob is None:
                manifest = await self._objects.aget_json(layout.manifest(entry.model)) or {}
                blob = manifest.get("blob")
            used.add(str(blob))
        for key in await self._objects.akeys(layout.all_holdings(tenant)):
            if f"/{layout.WEIGHTS}/" in key:
                used.add(str((await self._objects.aget_json(key) or {}).get("blob")))
        return used


def _entry(model: str, facts: Facts) -> Entry:
    return Entry(
        model,
        facts.get("name"),
        float(facts["added_at"]),
        facts.get("root"),
        facts.get("blob"),
        facts.get("note"),
        tuple(facts.get("tags") or ()),
    )
