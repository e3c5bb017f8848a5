"""Many clients, slow clients, broken clients, a full disk."""

from __future__ import annotations

import asyncio
import collections
import hashlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.service.models import small_file
from tests.service.running import PATIENCE, RunningService, running_service, until

CLIENTS = 200


def test_two_hundred_clients_get_the_right_answers(service: RunningService, model_id: str) -> None:
    expected = {
        number: service.cut(model_id, "self.layer1.0.conv1.weight", [number])["terminal"]
        for number in range(10)
    }

    async def one(client: httpx.AsyncClient, number: int) -> list[int]:
        statuses = []
        for turn in range(2):
            index = (number + turn) % 10
            answer = await client.post(
                f"/v1/models/{model_id}/cut-analysis",
                json={"node": "self.layer1.0.conv1.weight", "index": [index]},
            )
            statuses.append(answer.status_code)
            if answer.status_code == 200:
                assert answer.json()["terminal"] == expected[index]
        return statuses

    async def main() -> collections.Counter[int]:
        limits = httpx.Limits(max_connections=CLIENTS)
        async with httpx.AsyncClient(
            base_url=service.url, limits=limits, timeout=2 * PATIENCE
        ) as client:
            found = await asyncio.gather(*(one(client, number) for number in range(CLIENTS)))
        return collections.Counter(status for statuses in found for status in statuses)

    assert asyncio.run(main()) == {200: 2 * CLIENTS}


def test_fifty_clients_with_the_same_new_file_do_the_work_once(service: RunningService) -> None:
    file = small_file(1401)

    async def main() -> set[str]:
        async with httpx.AsyncClient(base_url=service.url, timeout=2 * PATIENCE) as client:
            answers = await asyncio.gather(
                *(
                    client.post("/v1/models", params={"input": "x:1x3x8x8"}, content=file.content)
                    for _ in range(50)
                )
            )
        assert {answer.status_code for answer in answers} <= {200, 202}
        return {answer.json()["id"] for answer in answers}

    (model,) = asyncio.run(main())
    assert service.wait_model(model)["state"] == "ready"
    lines = [line for line in service.log().splitlines() if '"job started"' in line]
    assert len([line for line in lines if model in line]) == 1


def request_head(length: int) -> bytes:
    return (
        f"POST /v1/models?input=x:1x3x8x8 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


@pytest.fixture
def impatient() -> Iterator[RunningService]:
    with running_service(TORCHPRUNER_UPLOAD_IDLE_TIMEOUT="2") as running:
        yield running


def connect(service: RunningService) -> socket.socket:
    url = httpx.URL(service.url)
    return socket.create_connection((url.host, url.port or 80), timeout=PATIENCE)


def test_slow_and_silent_senders_are_let_go_and_hold_nobody_up(impatient: RunningService) -> None:
    senders = [connect(impatient) for _ in range(40)]
    for sender in senders:
        sender.sendall(request_head(1_000_000) + b"PK\x03\x04")
    assert impatient.upload(small_file(1402).content, "x:1x3x8x8")["state"] == "ready"
    answer = b""
    while b"upload-stalled" not in answer and (part := senders[0].recv(4096)):
        answer += part
    assert b" 422 " in answer.splitlines()[0] and b"upload-stalled" in answer
    for sender in senders:
        sender.close()
    assert _empties(impatient.data_dir / "scratch")


def test_a_sender_that_hangs_up_leaves_nothing(service: RunningService) -> None:
    for _ in range(5):
        sender = connect(service)
        sender.sendall(request_head(1_000_000) + os.urandom(100_000))
        sender.close()
    assert _empties(service.data_dir / "scratch")


def _empties(folder: Path) -> bool:
    until(lambda: not [path for path in folder.iterdir() if path.name.startswith("upload-")])
    return True


def test_a_slow_reader_takes_no_memory(service: RunningService, model_id: str) -> None:
    artifact = service.artifact(model_id, "pruned-weights")
    assert service.process is not None
    process = psutil.Process(service.process.pid)
    before = process.memory_info().rss
    readers = [connect(service) for _ in range(10)]
    for reader in readers:
        reader.sendall(f"GET {artifact['content']} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        reader.recv(1000)
    time.sleep(2)
    # Ten times 47 MB are asked for; what waits is a few chunks for each.
    assert process.memory_info().rss - before < 80 * 2**20
    for reader in readers:
        reader.close()
    whole = service.client.get(artifact["content"])
    assert hashlib.sha256(whole.content).hexdigest() == artifact["sha256"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_a_507_and_then_works_again(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)])
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        with running_service(data_dir=disk) as service:
            kept = service.upload(small_file(1403).content, "x:1x3x8x8")
            assert kept["state"] == "ready"
            refused = service.client.post("/v1/models", content=os.urandom(64 << 20))
            assert (refused.status_code, refused.json()["type"]) == (507, "storage-full")
            assert _empties(disk / "scratch")
            assert service.cut(kept["id"], "self.conv1.weight", [0])["terminal"]
            again = service.upload(small_file(1404).content, "x:1x3x8x8")
            assert again["state"] == "ready"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
