"""Redis forgets its last writes when it is killed; what was acknowledged is found again all the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
import torch
from safetensors.torch import load

from tests.service.models import Small, onnx_of, small_file
from tests.service.running import RunningService, running_service, until
from torchpruner_service.settings import Settings
from torchpruner_service.state.graph_keys import drop_orphans
from torchpruner_service.state.keys import Keys
from torchpruner_service.storage import layout
from torchpruner_service.storage.garbage import collect
from torchpruner_service.storage.objects import Objects


@pytest.fixture(scope="module")
def own() -> Iterator[RunningService]:
    with running_service() as running:
        yield running


def connection(service: RunningService) -> redis.Redis:
    return redis.Redis(unix_socket_path=f"{service.data_dir}/valkey/valkey.sock")


def test_an_index_entry_that_was_lost_is_found(own: RunningService) -> None:
    model = own.upload(small_file(1801).content, "x:1x3x8x8")["id"]
    connection(own).hdel("torchpruner:tenant:default:models", model)
    assert own.client.get(f"/v1/models/{model}").json()["state"] == "ready"
    assert model in [item["id"] for item in own.client.get("/v1/models").json()["items"]]


@contextmanager
def no_worker(service: RunningService) -> Iterator[None]:
    parts = ("--with-parent", "torchpruner_service.worker.rq_worker")
    found = [process for part in parts for process in service.processes(part)]
    for process in found:
        process.suspend()
    yield
    for process in found:
        process.resume()


def test_a_job_that_was_lost_is_started_from_its_durable_request(own: RunningService) -> None:
    model = own.upload(small_file(1802).content, "x:1x3x8x8")["id"]
    store = connection(own)
    with no_worker(own):
        made = own.client.post(f"/v1/models/{model}/pruned-weights", json={})
        assert made.json()["state"] == "queued"
        for key in store.keys("torchpruner:job:weights-*") + store.keys("rq:*"):
            store.delete(key)
        store.delete("torchpruner:active")
    # Sooner than the half minute that it would take by itself.
    store.delete("torchpruner:restored")
    assert own.wait_job(made.headers["location"], 60)["state"] == "ready"


def test_a_job_that_was_asked_for_again_is_started_where_redis_knows_its_cancellation_alone(
    own: RunningService,
) -> None:
    model = own.upload(small_file(1806).content, "x:1x3x8x8")["id"]
    store = connection(own)
    with no_worker(own):
        made = own.client.post(f"/v1/models/{model}/pruned-weights", json={})
        job = made.json()["job"]
        assert own.client.delete(f"/v1/jobs/{job}").status_code == 204
        cancelled = store.dump(Keys().job(job))
        again = own.client.post(f"/v1/models/{model}/pruned-weights", json={})
        assert again.json()["state"] == "queued" and again.json()["job"] == job
        store.restore(Keys().job(job), 0, cancelled, replace=True)
        store.delete("torchpruner:active", *store.keys("rq:*"))
    store.delete("torchpruner:restored")
    until(lambda: own.client.get(f"/v1/jobs/{job}").json()["state"] == "ready")


def test_a_cancelled_job_stays_so_where_its_request_was_left_behind(own: RunningService) -> None:
    model = own.upload(small_file(1807).content, "x:1x3x8x8")["id"]
    with no_worker(own):
        made = own.client.post(f"/v1/models/{model}/pruned-weights", json={})
        job = made.json()["job"]
        pending = own.store / layout.pending(job)
        request = pending.read_bytes()
        assert own.client.delete(f"/v1/jobs/{job}").status_code == 204
        assert not pending.exists()
        pending.write_bytes(request)
    connection(own).delete("torchpruner:restored")
    until(lambda: not pending.exists())
    assert own.client.get(f"/v1/jobs/{job}").json()["state"] == "cancelled"


def test_graphs_in_redis_live_for_a_while_and_go_with_their_model(own: RunningService) -> None:
    first = own.upload(small_file(1804).content, "x:1x3x8x8")["id"]
    second = own.upload(small_file(1805).content, "x:1x3x8x8")["id"]
    store, keys = connection(own), Keys()
    for key in store.keys(keys.graph("*")):
        assert 0 < store.ttl(key) <= Settings().graph_ttl
    objects = Objects((own.data_dir / "objects").as_uri())
    assert drop_orphans(store, keys, objects) == 0
    own.client.delete(f"/v1/models/{first}")
    collect(objects, upload_ttl=3600, grace=0)
    assert drop_orphans(store, keys, objects) == 1
    assert not store.exists(keys.graph(first)) and store.exists(keys.graph(second))
    assert own.upload(small_file(1804).content, "x:1x3x8x8")["state"] == "ready"
    assert own.cut(first, "self.conv1.weight", [0])["terminal"]


def test_a_graph_that_redis_evicted_is_read_from_the_store(own: RunningService) -> None:
    first = own.upload(small_file(1803).content, "x:1x3x8x8")["id"]
    store = connection(own)
    store.flushall()
    assert own.cut(first, "self.conv1.weight", [0])["terminal"]
    listed = own.client.get("/v1/models").json()
    assert first in [item["id"] for item in listed["items"]]


def test_a_damaged_file_gives_no_weights_and_comes_back_with_the_same_upload(
    own: RunningService,
) -> None:
    content = onnx_of(Small(1809), torch.zeros(1, 3, 8, 8))
    digest = hashlib.sha256(content).hexdigest()
    model = own.upload(content)["id"]
    blob = own.store / layout.blob(digest)
    weights = Small(1809).conv1.weight.detach().numpy().tobytes()
    blob.chmod(0o600)
    blob.write_bytes(content.replace(weights, bytes(len(weights))))
    assert blob.read_bytes() != content
    made = own.client.post(f"/v1/models/{model}/pruned-weights", json={})
    ended = own.wait_job(made.headers["location"])
    assert (ended["state"], ended["problem"]["type"]) == ("failed", "blob-damaged")
    assert "upload it again" in ended["problem"]["detail"]
    again = own.client.post("/v1/models", content=content)
    assert (again.json()["id"], again.json()["state"]) == (model, "ready")
    assert blob.read_bytes() == content
    made = own.client.post(f"/v1/models/{model}/pruned-weights", json={})
    ended = own.wait_job(made.headers["location"])
    assert ended["state"] == "ready"
    found = load(own.client.get(f"{made.headers['location']}/content").content)
    assert found["conv1.weight"].numpy().tobytes() == weights
