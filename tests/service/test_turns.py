"""Tenants take turns, on a real Valkey."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from torchpruner_service.embedded import EmbeddedValkey
from torchpruner_service.settings import Settings
from torchpruner_service.state import reconciler as reconciling
from torchpruner_service.state.job_board import JobBoard, rq_id
from torchpruner_service.state.job_record import JobRecord
from torchpruner_service.state.keys import Keys
from torchpruner_service.state.reconciler import Reconciler
from torchpruner_service.state.turns import Turns
from torchpruner_service.storage.objects import Objects


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[redis.Redis, Settings]]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("valkey"))
    server = EmbeddedValkey(settings)
    server.start()
    try:
        yield redis.Redis.from_url(server.url), settings
    finally:
        server.stop()


@pytest.fixture
def turns(valkey: tuple[redis.Redis, Settings]) -> Turns:
    valkey[0].flushall()
    return Turns(valkey[0], Keys())


@pytest.fixture
def board(valkey: tuple[redis.Redis, Settings], tmp_path: Path) -> JobBoard:
    connection, settings = valkey
    connection.flushall()
    return JobBoard(connection, Objects(tmp_path.as_uri()), settings)


def take(turns: Turns, limit: int = 0, seconds: float = 60.0, **options: object) -> str | None:
    taken = turns.take("line", limit=limit, seconds=seconds, **options)  # type: ignore[arg-type]
    return None if taken is None else taken.item


def test_a_tenant_with_many_items_delays_another_s_by_one(turns: Turns) -> None:
    for number in range(50):
        turns.push("line", "many", f"many-{number}")
    assert take(turns) == "many-0"
    turns.push("line", "one", "one-0")
    assert [take(turns) for _ in range(3)] == ["many-1", "one-0", "many-2"]


def test_items_of_each_tenant_come_in_their_order_and_all_of_them(turns: Turns) -> None:
    sent = {tenant: [f"{tenant}-{n}" for n in range(4)] for tenant in ("a", "b", "c")}
    for tenant, items in sent.items():
        for item in items:
            turns.push("line", tenant, item)
    got = [take(turns) for _ in range(12)]
    assert take(turns) is None
    assert [str(item)[0] for item in got] == list("abc" * 4)
    for tenant, items in sent.items():
        assert [item for item in got if str(item).startswith(tenant)] == items


def test_a_tenant_at_its_limit_is_passed_over_until_something_of_its_ends(turns: Turns) -> None:
    for number in range(3):
        turns.push("line", "greedy", f"greedy-{number}")
    turns.push("line", "modest", "modest-0")
    first = turns.take("line", limit=1, seconds=60)
    assert first is not None and first.item == "greedy-0"
    assert [take(turns, limit=1), take(turns, limit=1)] == ["modest-0", None]
    turns.done(first)
    assert take(turns, limit=1) == "greedy-1"


@pytest.mark.parametrize(("back", "next_item"), [(True, "a-0"), (False, "a-1")])
def test_a_claim_that_lapses_counts_no_more_and_is_given_back_where_asked(
    turns: Turns, back: bool, next_item: str
) -> None:
    turns.push("line", "a", "a-0")
    turns.push("line", "a", "a-1")
    assert take(turns, limit=1, seconds=0.05, back=back) == "a-0"
    time.sleep(0.1)
    assert take(turns, limit=1, back=back) == next_item
    assert take(turns, limit=1, back=back) is None


def test_what_was_withdrawn_from_the_list_is_passed_over(
    turns: Turns, valkey: tuple[redis.Redis, Settings]
) -> None:
    for item in ("gone", "there"):
        turns.push("line", "a", item)
    valkey[0].rpush("listed", "there")
    assert take(turns, listed="listed") == "there"
    assert valkey[0].llen("listed") == 0


def job(tenant: str, number: int = 0, engine: str = "") -> JobRecord:
    return JobRecord(
        id=f"build-{tenant}{number}", kind="build", tenant=tenant, model="m", engine=engine
    )


def test_a_job_waits_for_workers_of_its_own_engine(board: JobBoard) -> None:
    board.submit(job("new"))
    board.submit(job("old", engine="0.0.1+1.1"))
    old = board.get("build-old0")
    assert old is not None and old.engine == "0.0.1+1.1" and board.waits_in_queue(old)
    (new,) = [board.get("build-new0")]
    assert new is not None
    taken = board.turns.take(f"build:{new.engine}", limit=0, seconds=60)
    assert taken is not None and taken.item == rq_id(new)
    assert board.turns.take(f"build:{new.engine}", limit=0, seconds=60) is None


@pytest.mark.parametrize(("engine", "adopted"), [("0.0.1+1.1", True), ("999.0+1.1", False)])
def test_jobs_of_an_older_engine_without_workers_are_taken_over_and_a_newer_one_s_wait(
    board: JobBoard, monkeypatch: pytest.MonkeyPatch, engine: str, adopted: bool
) -> None:
    monkeypatch.setattr(reconciling, "ADOPT_SECONDS", 0.0)
    board.submit(job("t", engine=engine))
    for _ in range(2):
        board.connection.delete(board.keys.reconciling)
        Reconciler(board).step()
    record = board.get("build-t0")
    assert record is not None and (record.engine != engine) is adopted
    assert board.waits_in_queue(record) and record.state == "queued"
    assert board.connection.llen(board.keys.waiting("build")) == 1
    line = f"build:{record.engine}"
    taken = board.turns.take(line, limit=0, seconds=60, listed=board.keys.waiting("build"))
    assert taken is not None and taken.item == rq_id(record)


def test_a_cancelled_job_is_not_taken(board: JobBoard) -> None:
    board.submit(job("t"))
    record = board.get("build-t0")
    assert record is not None and board.leave(record, "t")
    queue = board.keys.waiting("build")
    assert board.turns.take(f"build:{record.engine}", limit=0, seconds=60, listed=queue) is None


def test_an_ended_job_s_webhooks_wait_in_their_tenants_turns(board: JobBoard) -> None:
    record = job("t")
    record.watchers = [{"url": "http://a/", "secret": "s"}, {"url": "http://b/", "tenant": "u"}]
    board.submit(record)
    assert board.fail(record, {"type": "x", "detail": 'a "quoted" ü'})
    found = [board.turns.take("webhooks", limit=1, seconds=60) for _ in range(3)]
    assert [taken and taken.tenant for taken in found] == ["t", "u", None]
