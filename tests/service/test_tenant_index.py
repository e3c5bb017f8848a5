"""The index of what a tenant has, on a real Valkey: how often the store is read, and what is found."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from torchpruner_service.api.tenant_index import COMPARE_SECONDS, TenantIndex
from torchpruner_service.embedded import EmbeddedValkey
from torchpruner_service.settings import Settings
from torchpruner_service.state.keys import Keys
from torchpruner_service.state.redis_clients import async_client
from torchpruner_service.storage import layout
from torchpruner_service.storage.objects import Objects

KEYS = Keys()
MANY = 600


class CountedObjects(Objects):
    """An object store that counts how many objects are read."""

    reads = 0

    async def aget_json(self, key: str) -> Any | None:
        self.reads += 1
        return await super().aget_json(key)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EmbeddedValkey(Settings(data_dir=tmp_path_factory.mktemp("valkey")))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
async def redis(valkey: str) -> AsyncIterator[Any]:
    client = async_client(valkey)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def objects(tmp_path: Path) -> CountedObjects:
    return CountedObjects(tmp_path.as_uri())


def fill(objects: Objects, count: int = MANY) -> None:
    for number in range(count):
        objects.put_json(layout.owned("t", "models", f"m{number}"), {"added_at": number})


async def aged(redis: Any) -> None:
    """Let the last comparison be long ago; the store's times say that nothing is newer than it."""
    await redis.set(KEYS.indexed("t"), str(time.time() - COMPARE_SECONDS - 1))


async def settled(index: TenantIndex) -> None:
    while index._comparing:
        await asyncio.gather(*index._comparing.values())


async def test_requests_at_once_read_the_store_once(redis: Any, objects: CountedObjects) -> None:
    fill(objects)
    index = TenantIndex(redis, objects, KEYS)
    found = await asyncio.gather(*(index.all("t", "models") for _ in range(8)))
    assert all(len(each) == MANY for each in found)
    assert objects.reads == MANY


async def test_the_hourly_comparison_reads_only_what_is_new_and_nobody_waits(
    redis: Any, objects: CountedObjects, tmp_path: Path
) -> None:
    fill(objects)
    index = TenantIndex(redis, objects, KEYS)
    await index.all("t", "models")
    old = time.time() - 10 * COMPARE_SECONDS
    for path in tmp_path.rglob("m*"):
        os.utime(path, (old, old))
    objects.put_json(layout.owned("t", "models", "new"), {"added_at": 1})
    objects.delete(layout.owned("t", "models", "m0"))
    await aged(redis)
    objects.reads = 0
    others = [TenantIndex(redis, objects, KEYS) for _ in range(3)]
    found = await asyncio.gather(*(each.all("t", "models") for each in (index, *others)))
    assert all(len(each) == MANY for each in found)
    for each in (index, *others):
        await settled(each)
    assert objects.reads == 1
    assert set(await index.all("t", "models")) == {"new", *(f"m{n}" for n in range(1, MANY))}


async def test_what_is_removed_while_the_store_is_read_stays_removed(
    redis: Any, objects: CountedObjects
) -> None:
    fill(objects, 40)
    index = TenantIndex(redis, objects, KEYS)
    comparing = asyncio.create_task(index.all("t", "models"))
    while objects.reads < 5:
        await asyncio.sleep(0)
    await asyncio.gather(*(index.remove("t", "models", f"m{n}") for n in range(40)))
    await comparing
    assert await index.all("t", "models") == {}


async def test_an_item_that_redis_lost_is_found_and_noted(
    redis: Any, objects: CountedObjects
) -> None:
    index = TenantIndex(redis, objects, KEYS)
    await index.put("t", "blobs", "b", {"size": 3})
    await redis.hdel(KEYS.index("t", "blobs"), "b")
    assert await index.get("t", "blobs", "b") == {"size": 3}
    assert json.loads(await redis.hget(KEYS.index("t", "blobs"), "b")) == {"size": 3}
    assert await index.get("other", "blobs", "b") is None


async def test_without_redis_the_store_answers(objects: CountedObjects) -> None:
    away = async_client("unix:///nowhere/valkey.sock")
    fill(objects, 3)
    index = TenantIndex(away, objects, KEYS)
    assert set(await index.all("t", "models")) == {"m0", "m1", "m2"}
    assert await index.get("t", "models", "m1") == {"added_at": 1}
    assert await index.get("t", "models", "m9") is None
    await index.put("t", "models", "m9", {"added_at": 9})
    await index.remove("t", "models", "m0")
    assert set(await index.all("t", "models")) == {"m1", "m2", "m9"}
    await away.aclose()
