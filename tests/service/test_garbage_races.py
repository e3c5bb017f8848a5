"""Collecting garbage while others upload, derive, attach and delete, in every order of their steps.

The operations are the service's own, each in a thread that stops before every step in the object
store; hypothesis says whose step is next. The engine, Redis and the queue are not in it: what counts
is the order of what is written to and read from the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from torchpruner_service.api import models_service
from torchpruner_service.api.app_state import AppState
from torchpruner_service.api.blob_storing import store_blob
from torchpruner_service.api.catalog import Catalog
from torchpruner_service.api.ingest import StagedFile
from torchpruner_service.api.quotas import Quotas
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.identity import model_id
from torchpruner_service.problems import NotFound, Unavailable
from torchpruner_service.settings import Settings
from torchpruner_service.state.keys import Keys
from torchpruner_service.storage import layout
from torchpruner_service.storage.garbage import collect
from torchpruner_service.storage.objects import Objects

TENANTS = ("a", "b")
FILES = (b"first file", b"second file")
WEIGHTS = b"a file with weights"
PATIENCE = 20.0

operation: contextvars.ContextVar[Operation | None] = contextvars.ContextVar(
    "operation", default=None
)


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Operation:
    """Something that somebody does, one step in the store at a time."""

    def __init__(self, root: str, tenant: str, work: Callable[[], Any]) -> None:
        self.root, self.tenant = root, tenant
        self.deletes = False
        self.disturbed = False
        """Whether its tenant was removing the same thing meanwhile: then either may have won."""
        self.done = False
        self.error: BaseException | None = None
        self._work = work
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._wait()

    def step(self) -> None:
        self._go.release()
        self._wait()

    def pause(self) -> None:
        """Called by the store before each step."""
        self._stopped.release()
        self._go.acquire()

    def _wait(self) -> None:
        assert self._stopped.acquire(timeout=PATIENCE), "an operation hangs"

    def _run(self) -> None:
        operation.set(self)
        try:
            self._work()
        except BaseException as error:
            self.error = error
        self.done = True
        self._stopped.release()


def stepwise(name: str) -> Any:
    plain = getattr(Objects, name)

    def step(self: Objects, *arguments: Any) -> Any:
        current = operation.get()
        if current is not None:
            current.pause()
        return plain(self, *arguments)

    return step


class SteppedObjects(Objects):
    """The local store, one step at a time."""

    for _name in ("put", "get", "size", "delete", "put_file", "_copy"):
        locals()[_name] = stepwise(_name)

    def move(self, key: str, place: str) -> bool:
        self._pause()
        return super().move(key, place)

    def keys(self, prefix: str) -> Iterator[str]:
        self._pause()
        return iter(list(super().keys(prefix)))

    def keys_with_times(self, prefix: str) -> Iterator[tuple[str, float]]:
        self._pause()
        return iter(list(super().keys_with_times(prefix)))

    def _pause(self) -> None:
        current = operation.get()
        if current is not None:
            current.pause()

    async def aput(self, key: str, data: bytes) -> None:
        self.put(key, data)

    async def aput_file(self, key: str, path: Path) -> None:
        self.put_file(key, path)

    async def aget(self, key: str) -> bytes | None:
        return self.get(key)

    async def asize(self, key: str) -> int | None:
        return self.size(key)

    async def adelete(self, key: str) -> None:
        self.delete(key)

    async def akeys(self, prefix: str) -> list[str]:
        return list(self.keys(prefix))


class Away:
    """A Redis that does not answer: the store is asked for everything."""

    def __getattr__(self, name: str) -> Any:
        async def answer(*_: Any, **__: Any) -> Any:
            raise redis.ConnectionError("away")

        return answer


def app_state(objects: Objects) -> AppState:
    configured, keys, away = Settings(redis_url="redis://away"), Keys(), Away()
    catalog = Catalog(away, objects, keys)
    graphs: Any = SimpleNamespace(put=lambda *_: None)
    nothing: Any = None
    return AppState(
        settings=configured,
        redis=away,
        board=nothing,
        objects=objects,
        keys=keys,
        graphs=graphs,
        key_ring=nothing,
        catalog=catalog,
        quotas=Quotas(catalog, objects, configured),
        readiness=nothing,
        rates=nothing,
        audit=nothing,
    )


DERIVED = SimpleNamespace(
    nodes=[], operators=[], modules=[], inputs=[], outputs=[], unread=[],
    groups=list, params=int, flops=int, to_bytes=lambda: b"a graph",
)  # fmt: skip
RESULT = SimpleNamespace(to_dict=lambda: {"terminal": {}, "operator": {}})


def derived_id(parent: str, result: object = None) -> str:
    return f"m{digest_of(parent.encode())[:26]}"


async def build(state: AppState, who: Principal, model: str, watchers: object) -> bool:
    """What the queue and a worker come to."""
    if await models_service.has_graph(state, model):
        return False
    await state.objects.aput(layout.solved(model), b"a graph")
    await state.objects.aput_json(layout.facts(model), {"weightless": False})
    return True


async def shown(state: AppState, tenant: str, model: str) -> dict[str, Any]:
    return {"weightless": False}


async def graph(*_: object) -> Any:
    return SimpleNamespace(graph=SimpleNamespace(derive=lambda result: DERIVED))


@pytest.fixture(autouse=True, scope="module")
def without_engine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models_service, "submit_build", build)
        patch.setattr(models_service, "view", shown)
        patch.setattr(models_service, "graph_of", graph)
        patch.setattr(models_service, "fitting_result", lambda *_: RESULT)
        patch.setattr(models_service, "derived_model_id", derived_id)
        yield


class Garbage(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="tp-garbage-")
        self.objects = SteppedObjects(Path(self._folder.name, "store").as_uri())
        self.state = app_state(self.objects)
        self.running: list[tuple[Operation, Callable[[], None]]] = []
        self.acknowledged: dict[tuple[str, str, str], list[str]] = {}
        """By tenant, root and what: the objects that must be there."""

    # What anybody may begin

    @rule(tenant=st.sampled_from(TENANTS), number=st.integers(0, 1))
    def upload(self, tenant: str, number: int) -> None:
        content, root = FILES[number], model_id(digest_of(FILES[number]), [])

        async def work() -> None:
            with self._staged(content) as staged:
                await store_blob(self.state, Principal(tenant), staged)
            await models_service.register(
                self.state,
                Principal(tenant),
                blob=digest_of(content),
                size=len(content),
                form="onnx",
                inputs=[],
                name=None,
                watchers=[],
            )

        kept = [layout.blob(digest_of(content)), layout.manifest(root)]
        self._begin(tenant, root, work(), "model", [*kept, layout.owned(tenant, "models", root)])

    @rule(tenant=st.sampled_from(TENANTS), number=st.integers(0, 1))
    def derive(self, tenant: str, number: int) -> None:
        root = model_id(digest_of(FILES[number]), [])
        child = derived_id(root)
        body: Any = SimpleNamespace(result=None, name=None)

        async def work() -> None:
            await models_service.derive(self.state, Principal(tenant), root, body)

        kept = [
            layout.blob(digest_of(FILES[number])),
            layout.manifest(child),
            layout.solved(child),
            layout.facts(child),
            layout.owned(tenant, "models", child),
        ]
        self._begin(tenant, root, work(), "derived", kept)

    @rule(tenant=st.sampled_from(TENANTS), number=st.integers(0, 1))
    def attach(self, tenant: str, number: int) -> None:
        root = model_id(digest_of(FILES[number]), [])

        async def work() -> None:
            await models_service.manifest_of(self.state, tenant, root)
            with self._staged(WEIGHTS) as staged:
                await store_blob(self.state, Principal(tenant), staged)
            facts = {"blob": digest_of(WEIGHTS), "format": "onnx"}
            await self.state.catalog.hold(tenant, root, layout.WEIGHTS, facts)
            await models_service.require_blob(self.state, digest_of(WEIGHTS))

        kept = [
            layout.blob(digest_of(WEIGHTS)),
            layout.holding(tenant, root, layout.WEIGHTS),
        ]
        self._begin(tenant, root, work(), "weights", kept)

    @rule(tenant=st.sampled_from(TENANTS), number=st.integers(0, 1), derived=st.booleans())
    def delete(self, tenant: str, number: int, derived: bool) -> None:
        root = model_id(digest_of(FILES[number]), [])
        model = derived_id(root) if derived else root
        for what in ("derived" if derived else "model", "weights"):
            self.acknowledged.pop((tenant, root, what), None)
        for each, _ in self.running:
            each.disturbed |= (each.tenant, each.root) == (tenant, root)
        work = self.state.catalog.remove_model(tenant, model)
        self._begin(tenant, root, work, "", [], deletes=True)

    @rule()
    def collect(self) -> None:
        self._start(
            Operation("", "", lambda: collect(self.objects, upload_ttl=3600, grace=0)),
            lambda: None,
        )

    @rule(which=st.integers(0, 5), steps=st.integers(1, 12))
    def go_on(self, which: int, steps: int) -> None:
        if self.running:
            each, acknowledge = self.running[which % len(self.running)]
            for _ in range(steps):
                if not self._ended(each, acknowledge):
                    each.step()
            self._ended(each, acknowledge)

    # What must hold

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        for (tenant, root, what), kept in self.acknowledged.items():
            for key in kept:
                there = self.objects.exists(key) or list(
                    self.objects.keys(layout.all_discarded(key))
                )
                assert there, f"{what} {root} of {tenant}: {key} is gone"

    def teardown(self) -> None:
        try:
            while self.running:
                each, acknowledge = self.running[0]
                if not self._ended(each, acknowledge):
                    each.step()
            collect(self.objects, upload_ttl=3600, grace=0)
            collect(self.objects, upload_ttl=3600, grace=0)
            for (tenant, root, what), kept in self.acknowledged.items():
                for key in kept:
                    assert self.objects.exists(key), f"{what} {root} of {tenant}: {key} is gone"
            for key in (*self.objects.keys("blobs/"), *self.objects.keys(layout.TRASH)):
                content = self.objects.get(key)
                assert content is not None and digest_of(content) in key
            owners = list(self.objects.keys("tenants/"))
            if not owners:
                left = [
                    key for kind in ("blobs", "models") for key in self.objects.keys(f"{kind}/")
                ]
                assert not left, "what nobody owns is still there"
        finally:
            self._folder.cleanup()

    # How

    def _begin(
        self,
        tenant: str,
        root: str,
        work: Coroutine[Any, Any, Any],
        what: str,
        kept: list[str],
        deletes: bool = False,
    ) -> None:
        disturbed = any(
            each.deletes and (each.tenant, each.root) == (tenant, root) for each, _ in self.running
        )
        each = Operation(root, tenant, lambda: asyncio.run(work))
        each.deletes, each.disturbed = deletes, disturbed

        def acknowledge() -> None:
            if each.error is not None:
                # Refused is not lost: the caller was told.
                assert isinstance(each.error, (NotFound, Unavailable)), each.error
            elif what and not each.disturbed:
                self.acknowledged[tenant, root, what] = kept

        self._start(each, acknowledge)

    def _start(self, each: Operation, acknowledge: Callable[[], None]) -> None:
        self.running.append((each, acknowledge))
        self._ended(each, acknowledge)

    def _ended(self, each: Operation, acknowledge: Callable[[], None]) -> bool:
        if each.done and (each, acknowledge) in self.running:
            self.running.remove((each, acknowledge))
            if each.root == "" and each.error is not None:
                raise each.error
            acknowledge()
        return each.done

    @contextlib.contextmanager
    def _staged(self, content: bytes) -> Iterator[StagedFile]:
        path = Path(tempfile.mkstemp(dir=self._folder.name)[1])
        path.write_bytes(content)
        with StagedFile(path, len(content), digest_of(content)) as staged:
            yield staged


TestGarbage = Garbage.TestCase
TestGarbage.settings = settings(
    max_examples=120,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_each_pair_of_operations_in_each_order_of_a_collection_s_steps() -> None:
    """Exhaustive where the machine is random: an upload that starts and pauses at any step of a
    collection, and a collection that starts and pauses at any step of an upload."""
    for before in range(40):
        for within in range(0, 24, 3):
            machine = Garbage()
            machine.upload("a", 0)
            _finish(machine)
            machine.delete("a", 0, derived=False)
            _finish(machine)
            machine.collect()
            machine.go_on(0, before + 1)
            if not machine.running:
                machine.teardown()
                break
            machine.upload("b", 0)
            machine.go_on(1, within + 1)
            machine.nothing_acknowledged_is_lost()
            machine.go_on(0, 200)
            machine.nothing_acknowledged_is_lost()
            machine.go_on(0, 200)
            assert not machine.running
            machine.nothing_acknowledged_is_lost()
            machine.teardown()


@pytest.mark.parametrize("looked", range(1, 6))
def test_two_collections_and_an_upload_in_between(looked: int) -> None:
    """Both have looked before the upload, and one moves away what the other then finds."""
    for other in range(6):
        for moved in range(1, 8):
            machine = Garbage()
            machine.upload("a", 0)
            _finish(machine)
            machine.delete("a", 0, derived=False)
            _finish(machine)
            machine.collect()
            machine.collect()
            first, second = (each for each, _ in machine.running)
            _go_on(machine, first, looked)
            _go_on(machine, second, other)
            machine.upload("b", 0)
            _go_on(machine, machine.running[-1][0], 200)
            _go_on(machine, first, moved)
            machine.nothing_acknowledged_is_lost()
            _go_on(machine, second, 200)
            machine.nothing_acknowledged_is_lost()
            machine.teardown()


def _go_on(machine: Garbage, each: Operation, steps: int) -> None:
    for number, (running, _) in enumerate(machine.running):
        if running is each:
            machine.go_on(number, steps)
            return


def _finish(machine: Garbage) -> None:
    while machine.running:
        machine.go_on(0, 200)
