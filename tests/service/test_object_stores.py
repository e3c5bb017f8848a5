"""A remote object store: the same service against a server that speaks S3, and what its failures come to."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from safetensors.torch import load

from tests.service.models import small_file
from tests.service.running import RunningService, running_service, until, unused_port

BUCKET = "torchpruner"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client(url).create_bucket(Bucket=BUCKET)
    yield url
    server.stop()


def client(url: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


@pytest.fixture(scope="module")
def remote(s3: str) -> Iterator[RunningService]:
    with running_service(
        STORAGE_URL=f"s3://{BUCKET}/a-prefix",
        AWS_ENDPOINT_URL=s3,
        AWS_REGION="us-east-1",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
    ) as running:
        yield running


def test_everything_works_on_s3(remote: RunningService, s3: str) -> None:
    file = small_file(1101)
    model = remote.upload(file.content, *file.inputs)
    assert model["state"] == "ready", model
    cut = remote.cut(model["id"], "self.conv1.weight", [0, 1])
    cut.pop("model")
    artifact = remote.artifact(model["id"], "pruned-weights", result=cut)
    assert artifact["state"] == "ready", artifact
    answer = remote.client.get(artifact["content"])
    assert load(answer.content)["conv1.weight"].shape == (6, 3, 3, 3)
    part = remote.client.get(artifact["content"], headers={"Range": "bytes=8-15"})
    assert part.content == answer.content[8:16]
    stored = client(s3).list_objects_v2(Bucket=BUCKET)["Contents"]
    assert all(item["Key"].startswith("a-prefix/") for item in stored)
    assert remote.client.head(f"/v1/blobs/{model['blob']}").status_code == 200
    assert not (remote.data_dir / "objects").exists()


def test_a_resumable_upload_is_joined_on_s3(remote: RunningService) -> None:
    content = small_file(1102).content
    started = remote.client.post("/v1/uploads", json={"length": len(content)})
    path, half = started.headers["location"], len(content) // 2
    remote.client.patch(path, content=content[:half], headers={"Upload-Offset": "0"})
    done = remote.client.patch(path, content=content[half:], headers={"Upload-Offset": str(half)})
    assert done.json()["complete"], done.text
    body = {"upload": started.json()["id"], "inputs": [{"name": "x", "shape": [1, 3, 8, 8]}]}
    made = remote.client.post("/v1/models", json=body)
    assert remote.wait_model(made.json()["id"])["state"] == "ready"


def test_many_at_once_register_a_file_whose_format_nobody_noted(
    remote: RunningService, s3: str
) -> None:
    file = small_file(1105)
    blob = remote.upload(file.content, *file.inputs)["blob"]
    store = client(s3)

    def registered(batch: int) -> int:
        asked = {"blob": blob, "inputs": [{"name": "x", "shape": [batch, 3, 8, 8]}]}
        return int(remote.client.post("/v1/models", json=asked).status_code)

    for turn in range(4):
        for item in store.list_objects_v2(Bucket=BUCKET)["Contents"]:
            if item["Key"].endswith(".format"):
                store.delete_object(Bucket=BUCKET, Key=item["Key"])
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(registered, range(8 * turn + 2, 8 * turn + 10))) == {202}


def test_a_store_that_fails_is_a_503_and_then_works_again() -> None:
    port = unused_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{port}"
    client(url).create_bucket(Bucket=BUCKET)
    with running_service(
        STORAGE_URL=f"s3://{BUCKET}",
        AWS_ENDPOINT_URL=url,
        AWS_REGION="us-east-1",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
    ) as service:
        kept = service.upload(small_file(1103).content, "x:1x3x8x8")
        service.cut(kept["id"], "self.conv1.weight", [0])
        server.stop()
        refused = service.client.post(
            "/v1/models", params={"input": "x:1x3x8x8"}, content=small_file(1104).content
        )
        assert refused.status_code == 503, refused.text
        assert refused.headers["retry-after"]
        # The store's answer to the last who asked stands for some seconds.
        until(lambda: service.client.get("/readyz").status_code == 503)
        assert service.client.get("/readyz").json()["storage"] is False
        # What is in memory is still answered.
        assert service.cut(kept["id"], "self.conv1.weight", [0])["terminal"]
        again = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        again.start()
        try:
            client(url).create_bucket(Bucket=BUCKET)
            done = service.upload(small_file(1104).content, "x:1x3x8x8")
            assert done["state"] == "ready", done
        finally:
            again.stop()
