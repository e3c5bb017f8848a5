"""What each tenant has, as an index in Redis of the facts in the object store.

The store is written first and is the truth. The index is built where Redis has lost it and compared
with the store once an hour, behind the requests, reading only what is new; while Redis is away the
store is asked directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import structlog

from torchpruner_service.problems import Problem
from torchpruner_service.state.keys import Keys
from torchpruner_service.state.redis_clients import REDIS_ERRORS
from torchpruner_service.storage import layout
from torchpruner_service.storage.layout import Kind
from torchpruner_service.storage.objects import Objects

Facts = dict[str, Any]

KINDS: tuple[Kind, ...] = get_args(Kind)
COMPARE_SECONDS = 3600.0
SLACK_SECONDS = 120.0
"""How far the clocks of the store and of this machine may differ."""
CLAIM_SECONDS = 120
AT_ONCE = 32
"""Questions to the object store at the same time."""

log = structlog.get_logger(__name__)


class TenantIndex:
    """Facts by (tenant, kind, item). Whoever asks for a tenant's facts names the tenant."""

    def __init__(self, redis: Any, objects: Objects, keys: Keys) -> None:
        self._redis = redis
        self._objects = objects
        self._keys = keys
        self._comparing: dict[str, asyncio.Task[None]] = {}

    async def get(self, tenant: str, kind: Kind, item: str) -> Facts | None:
        """The facts of one item, or ``None`` where the tenant does not have it."""
        index, key = self._keys.index(tenant, kind), layout.owned(tenant, kind, item)
        try:
            data = await self._redis.hget(index, item)
            if data is not None:
                return _facts(data)
            # Redis may have lost its last second: what the store has is the truth.
            facts: Facts | None = await self._objects.aget_json(key)
            if facts is not None:
                await self._redis.hset(index, item, json.dumps(facts))
            return facts
        except REDIS_ERRORS:
            stored: Facts | None = await self._objects.aget_json(key)
            return stored

    async def all(self, tenant: str, kind: Kind) -> dict[str, Facts]:
        """The facts of every item of a tenant."""
        try:
            compared = await self._redis.get(self._keys.indexed(tenant))
            if compared is None:
                await self._compare_once(tenant, since=0.0)
            elif time.time() - float(compared) > COMPARE_SECONDS:
                await self._compare_behind(tenant, float(compared))
            stored = await self._redis.hgetall(self._keys.index(tenant, kind))
            return {item.decode(): _facts(data) for item, data in stored.items()}
        except REDIS_ERRORS:
            listed = await self._objects.akeys(layout.all_owned(tenant, kind))
            return await self._read(tenant, kind, map(_item, listed))

    async def put(self, tenant: str, kind: Kind, item: str, facts: Facts) -> None:
        await self._objects.aput_json(layout.owned(tenant, kind, item), facts)
        try:
            await self._redis.hset(self._keys.index(tenant, kind), item, json.dumps(facts))
        except REDIS_ERRORS:
            await self._forget(tenant)

    async def remove(self, tenant: str, kind: Kind, item: str) -> None:
        await self._objects.adelete(layout.owned(tenant, kind, item))
        try:
            await self._redis.hdel(self._keys.index(tenant, kind), item)
        except REDIS_ERRORS:
            # The index would show something that is gone: have it read anew.
            await self._forget(tenant)

    async def _forget(self, tenant: str) -> None:
        with contextlib.suppress(*REDIS_ERRORS):
            await self._redis.delete(self._keys.indexed(tenant))

    async def _compare_behind(self, tenant: str, since: float) -> None:
        """Compare without anybody waiting, in one process."""
        if tenant not in self._comparing and await self._redis.set(
            self._keys.indexing(tenant), "1", nx=True, ex=CLAIM_SECONDS
        ):
            self._start(tenant, since)

    async def _compare_once(self, tenant: str, since: float) -> None:
        """Compare, or wait for whoever compares already."""
        task = self._comparing.get(tenant) or self._start(tenant, since)
        await asyncio.shield(task)

    def _start(self, tenant: str, since: float) -> asyncio.Task[None]:
        task = asyncio.create_task(self._compare(tenant, since))
        self._comparing[tenant] = task
        task.add_done_callback(lambda done: self._ended(tenant, done))
        return task

    def _ended(self, tenant: str, task: asyncio.Task[None]) -> None:
        self._comparing.pop(tenant, None)
        # Nobody may wait for a comparison; whoever does sees its error as well.
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, (Problem, *REDIS_ERRORS)):
            log.error("comparing an index with the store failed", tenant=tenant, exc_info=error)

    async def _compare(self, tenant: str, since: float) -> None:
        started = time.time()
        for kind in KINDS:
            index = self._keys.index(tenant, kind)
            held = {item.decode() for item in await self._redis.hkeys(index)}
            stored = await self._objects.akeys_with_times(layout.all_owned(tenant, kind))
            changed = [
                _item(key)
                for key, modified in stored
                if _item(key) not in held or modified > since - SLACK_SECONDS
            ]
            found = await self._read(tenant, kind, changed)
            if found:
                values = {item: json.dumps(facts) for item, facts in found.items()}
                await self._redis.hset(index, mapping=values)
            # Looked at again, since an item may have been removed while its facts were read.
            there = set(map(_item, await self._objects.akeys(layout.all_owned(tenant, kind))))
            gone = (held | found.keys()) - there
            if gone:
                await self._redis.hdel(index, *gone)
        await self._redis.set(self._keys.indexed(tenant), str(started))

    async def _read(self, tenant: str, kind: Kind, items: Iterable[str]) -> dict[str, Facts]:
        limit = asyncio.Semaphore(AT_ONCE)
        wanted = list(items)

        async def one(item: str) -> Facts | None:
            async with limit:
                facts: Facts | None = await self._objects.aget_json(
                    layout.owned(tenant, kind, item)
                )
                return facts

        found = await asyncio.gather(*map(one, wanted))
        return {item: facts for item, facts in zip(wanted, found, strict=True) if facts is not None}


def _facts(data: bytes) -> Facts:
    facts: Mapping[str, Any] = json.loads(data)
    return dict(facts)


def _item(key: str) -> str:
    return key.rpartition("/")[2]
