"""Solved graphs that this process keeps unpacked, least recently used out first."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread

from torchpruner_core.analysis.solved_graph import SolvedGraph

BYTES_PER_NAME = 2500
"""What a node or operator costs as Python objects, measured."""


@dataclass(slots=True)
class CachedGraph:
    """A graph and what was computed from it; ``views`` holds finished lists by name."""

    graph: SolvedGraph
    cost: int
    views: dict[str, Any] = field(default_factory=dict)

    def view(self, name: str, make: Callable[[SolvedGraph], Any]) -> Any:
        """Return ``make(graph)``, made once."""
        if name not in self.views:
            self.views[name] = make(self.graph)
        return self.views[name]


class GraphCache:
    """Graphs by model id, up to ``limit`` bytes by estimate. Concurrent misses load once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[str, CachedGraph] = OrderedDict()
        self._loading: dict[str, asyncio.Task[CachedGraph]] = {}
        self.hits = 0
        self.misses = 0

    def get(self, model: str) -> CachedGraph | None:
        found = self._held.get(model)
        if found is not None:
            self._held.move_to_end(model)
            self.hits += 1
        return found

    async def load(self, model: str, read: Callable[[], Awaitable[bytes]]) -> CachedGraph:
        """Return the graph of ``model``, reading its bytes with ``read`` where it is not held."""
        found = self.get(model)
        if found is not None:
            return found
        self.misses += 1
        task = self._loading.get(model)
        if task is None:
            task = asyncio.create_task(self._load(model, read))
            self._loading[model] = task
            task.add_done_callback(lambda _: self._loading.pop(model, None))
        return await asyncio.shield(task)

    async def _load(self, model: str, read: Callable[[], Awaitable[bytes]]) -> CachedGraph:
        data = await read()
        return self.put(model, await anyio.to_thread.run_sync(_unpacked, data))

    def put(self, model: str, graph: SolvedGraph) -> CachedGraph:
        cached = CachedGraph(graph, _cost(graph))
        self._held[model] = cached
        total = sum(item.cost for item in self._held.values())
        while total > self._limit and len(self._held) > 1:
            _, dropped = self._held.popitem(last=False)
            total -= dropped.cost
        return cached


def _unpacked(data: bytes) -> SolvedGraph:
    graph = SolvedGraph.from_bytes(data)
    # The first question should not pay for the indexes that every later one shares.
    graph.closure  # noqa: B018
    graph.axis_owner  # noqa: B018
    return graph


def _cost(graph: SolvedGraph) -> int:
    names = len(graph.nodes) + len(graph.operators) + len(graph.modules)
    return BYTES_PER_NAME * names + 6 * int(graph.coupling.component.nbytes)
