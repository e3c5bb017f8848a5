"""Redis forgets its last writes when it is killed; what was acknowledged is found again all the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
import redis
import torch
from safetensors.torch import load

from tests.service.models import Small, onnx_of, small_file
from tests.service.running import RunningService, running_service
from torchpruner_service.settings import Settings
from torchpruner_service.state.graph_keys import drop_orphans
from torchpruner_service.state.keys import Keys
from torchpruner_service.storage import layout
from torchpruner_service.storage.garbage import collect
from torchpruner_service.storage.objects import Objects


@pytest.fixture
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


def test_a_job_that_was_lost_is_started_from_its_durable_request(own: RunningService) -> None:
    model = own.upload(small_file(1802).content, "x:1x3x8x8")["id"]
    for process in own.processes("--with-parent") + own.processes(
        "torchpruner_service.worker.rq_worker"
    ):
        process.suspend()
    made = own.client.post(f"/v1/models/{model}/pruned-weights", json={})
    assert made.json()["state"] == "queued"
    store = connection(own)
    for key in store.keys("torchpruner:job:weights-*") + store.keys("rq:*"):
        store.delete(key)
    store.delete("torchpruner:active")
    for process in own.processes("--with-parent") + own.processes(
        "torchpruner_service.worker.rq_worker"
    ):
        process.resume()
    # Sooner than the half minute that it would take by itself.
    store.delete("torchpruner:restored")
    assert own.wait_job(made.headers["location"], 60)["state"] == "ready"


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
    assert [item["id"] for item in listed["items"]] == [first]


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
