"""A quota holds whichever way something comes, and leaves a way out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.service.models import small_file
from tests.service.running import RunningService
from tests.service.test_access import caller, ended, keys

SIZE = len(small_file(8000).content)
INPUT = {"input": "x:1x3x8x8"}


Key = Callable[..., httpx.Client]


@pytest.fixture
def key(guarded: RunningService) -> Iterator[Key]:
    made = []

    def create(**quotas: int) -> httpx.Client:
        options = [
            text
            for name, value in quotas.items()
            for text in (f"--{name.replace('_', '-')}", str(value))
        ]
        made.append(
            caller(guarded, keys(guarded, "create", "--tenant", f"q{time.time_ns()}", *options))
        )
        return made[-1]

    yield create
    for client in made:
        client.close()


def refused(answer: httpx.Response, slug: str = "quota-exceeded") -> dict[str, Any]:
    assert (answer.status_code, answer.json()["type"]) == (429, slug), answer.text
    found: dict[str, Any] = answer.json()
    return found


def upload(client: httpx.Client, seed: int) -> dict[str, Any]:
    answer = client.post("/v1/models", params=INPUT, content=small_file(seed).content)
    assert answer.status_code in (200, 202), answer.text
    shown = ended(client, answer.headers["location"])
    assert shown["state"] == "ready"
    return shown


def chunked(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


def resumable(client: httpx.Client, content: bytes) -> str:
    started = client.post("/v1/uploads", json={"length": len(content)})
    assert started.status_code == 201, started.text
    path = started.headers["location"]
    assert client.patch(path, content=content, headers={"Upload-Offset": "0"}).status_code == 200
    return str(started.json()["id"])


def test_a_body_without_a_length_counts(key: Key) -> None:
    client = key(quota_bytes=SIZE + SIZE // 2)
    upload(client, 8000)
    body = chunked(small_file(8001).content)
    refused(client.post("/v1/models", params=INPUT, content=body))
    form = {"file": ("m", small_file(8001).content)}
    refused(client.post("/v1/models", params=INPUT, files=form))
    assert client.get("/v1/blobs").json()["total"] == 1


def test_uploads_count_from_their_beginning(key: Key) -> None:
    client = key(quota_bytes=SIZE + SIZE // 2)
    first = client.post("/v1/uploads", json={"length": SIZE}).json()["id"]
    refused(client.post("/v1/uploads", json={"length": SIZE}))
    refused(client.post("/v1/models", params=INPUT, content=small_file(8002).content))
    assert [item["id"] for item in client.get("/v1/uploads").json()["items"]] == [first]
    assert client.delete(f"/v1/uploads/{first}").status_code == 204
    # What was an upload and is a file counts once.
    identifier = resumable(client, small_file(8002).content)
    made = client.post(
        "/v1/models", json={"upload": identifier, "inputs": [{"name": "x", "shape": [1, 3, 8, 8]}]}
    )
    assert made.status_code == 202, made.text
    assert client.get("/v1/uploads").json()["total"] == 0
    refused(client.post("/v1/uploads", json={"length": SIZE}))


def test_open_uploads_are_few(key: Key) -> None:
    client = key()
    for _ in range(5):
        assert client.post("/v1/uploads", json={"length": 3}).status_code == 201
    refused(client.post("/v1/uploads", json={"length": 3}), "too-many-uploads")


def test_derived_models_count(key: Key) -> None:
    client = key(quota_models=2)
    model = upload(client, 8003)["id"]
    results = []
    for index in (0, 1):
        cut = {"node": "self.conv1.weight", "index": [index]}
        results.append(client.post(f"/v1/models/{model}/cut-analysis", json=cut).json())
        results[-1].pop("model")
    made = client.post(f"/v1/models/{model}/derive", json={"result": results[0]})
    assert made.status_code == 201
    refused(client.post(f"/v1/models/{model}/derive", json={"result": results[1]}))
    # One that the tenant has already is no new one.
    again = client.post(f"/v1/models/{model}/derive", json={"result": results[0]})
    assert again.json()["id"] == made.json()["id"]
    assert client.delete(f"/v1/models/{made.json()['id']}").status_code == 204
    assert client.post(f"/v1/models/{model}/derive", json={"result": results[1]}).status_code == 201


def test_files_made_count_and_can_be_removed(key: Key) -> None:
    client = key(quota_bytes=2 * SIZE + SIZE // 2)
    model = upload(client, 8004)["id"]
    made = client.post(f"/v1/models/{model}/pruned-weights", json={}).json()
    ended(client, f"/v1/artifacts/{made['id']}")
    refused(client.post(f"/v1/models/{model}/pruned-weights", json={"format": "npz"}))
    assert client.delete(f"/v1/artifacts/{made['id']}").status_code == 204
    assert client.get(f"/v1/artifacts/{made['id']}/content").status_code == 404
    other = client.post(f"/v1/models/{model}/pruned-weights", json={"format": "npz"})
    assert other.status_code == 202
    assert client.delete(f"/v1/artifacts/{other.json()['id']}").status_code == 204
    again = client.post(f"/v1/models/{model}/pruned-weights", json={}).json()
    assert again["id"] == made["id"]
    shown = ended(client, f"/v1/artifacts/{made['id']}")
    assert client.get(shown["content"]).status_code == 200


def test_there_is_always_something_to_delete(key: Key) -> None:
    client = key(quota_bytes=SIZE + SIZE // 2)
    resumable(client, b"\x80 no model, and so never one" + b"x" * SIZE)
    refused(client.post("/v1/models", params=INPUT, content=small_file(8005).content))
    (file,) = client.get("/v1/blobs").json()["items"]
    assert not file["in_use"]
    assert client.delete(f"/v1/blobs/{file['sha256']}").status_code == 204
    shown = upload(client, 8005)
    blocked = client.delete(f"/v1/blobs/{shown['blob']}")
    assert (blocked.status_code, blocked.json()["type"]) == (409, "blob-in-use")
    assert client.delete(f"/v1/models/{shown['id']}").status_code == 204
    assert client.get("/v1/blobs").json()["total"] == 0


def test_requests_at_once_do_not_pass_together(key: Key) -> None:
    client = key(quota_models=1, quota_bytes=2 * SIZE)
    contents = [small_file(8010 + number).content for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda c: client.post("/v1/models", params=INPUT, content=c), contents)
        )
    assert {answer.status_code for answer in answers} <= {200, 202, 429}
    assert client.get("/v1/models").json()["total"] <= 1
    assert sum(item["size"] for item in client.get("/v1/blobs").json()["items"]) <= 2 * SIZE
