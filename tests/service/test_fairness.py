"""One tenant's endless programs, dripping receivers and old workers are not another's trouble."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.attacks.test_torchscript import NeverEnds, program
from tests.service.models import small_file
from tests.service.running import PATIENCE, RunningService, running_service, until
from tests.service.test_access import caller, ended, keys, upload
from tests.service.test_events import SECRET, Receiver, receiver, send
from torchpruner_service.identity import engine_version

__all__ = ["receiver"]

# Longer than any machine needs for the other tenant's work; nobody waits for it.
STUCK_SECONDS = 250


def running(client: httpx.Client) -> int:
    return sum(job["state"] == "running" for job in client.get("/v1/jobs").json()["items"])


def endless(client: httpx.Client, number: int) -> None:
    answer = client.post(
        "/v1/models", params={"input": f"x:{number + 1}"}, content=program(NeverEnds())
    )
    assert answer.status_code == 202, answer.text


def test_endless_programs_of_one_tenant_leave_another_a_worker() -> None:
    with running_service(
        "--workers", "2", TORCHPRUNER_AUTH="on", TORCHPRUNER_JOB_TIMEOUT=str(STUCK_SECONDS)
    ) as service:
        greedy = caller(service, keys(service, "create", "--tenant", "greedy"))
        modest = caller(service, keys(service, "create", "--tenant", "modest"))
        for number in range(4):
            endless(greedy, number)
        until(lambda: running(greedy))
        for seed in (2101, 2102):
            assert upload(modest, seed)["state"] == "ready"
        # All of it while the first endless program still runs, and alone.
        assert running(greedy) == 1
        for job in greedy.get("/v1/jobs").json()["items"]:
            greedy.delete(f"/v1/jobs/{job['id']}")


@pytest.fixture
def dripping() -> Iterator[str]:
    """A receiver that answers a byte a second and never gets to an end."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopping = threading.Event()

    def drip(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Drip: 1\r\n" * 1000:
                if stopping.wait(0.5):
                    return
                connection.sendall(bytes([byte]))

    def work() -> None:
        while not stopping.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    threading.Thread(target=work, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    stopping.set()
    listener.close()


def test_a_dripping_receiver_holds_neither_builds_nor_other_hooks(
    dripping: str, receiver: tuple[str, type[Receiver]]
) -> None:
    url, heard = receiver
    with running_service(
        TORCHPRUNER_AUTH="on",
        TORCHPRUNER_WEBHOOK_ALLOW_PRIVATE="true",
        TORCHPRUNER_WEBHOOK_TIMEOUT="3",
    ) as service:
        headers = {"Torchpruner-Webhook": dripping, "Torchpruner-Webhook-Secret": SECRET}
        slow = caller(service, keys(service, "create", "--tenant", "slow"))
        for seed in range(2110, 2118):
            answer = slow.post(
                "/v1/models",
                params={"input": "x:1x3x8x8"},
                content=small_file(seed).content,
                headers=headers,
            )
            assert answer.status_code == 202
        quick = caller(service, keys(service, "create", "--tenant", "quick"))
        service.client.headers.update(quick.headers)
        model = send(service, 2120, url).json()["id"]
        _, body = heard.calls.get(timeout=PATIENCE)
        assert model in body.decode()
        # The slow tenant's builds end too, whatever its calls do, of which each is given up in time.
        for job in slow.get("/v1/jobs").json()["items"]:
            assert ended(slow, f"/v1/jobs/{job['id']}")["state"] == "ready"
        until(lambda: service.log().count("webhook too slow") >= 3)


def test_a_model_that_a_limit_stopped_is_built_once_the_limit_is_raised(tmp_path: Path) -> None:
    # Far too little for any process that has torch, and then enough.
    with running_service(data_dir=tmp_path, TORCHPRUNER_SANDBOX_MEMORY=str(1 << 20)) as tight:
        file = small_file(2130)
        failed = tight.upload(file.content, *file.inputs)
        assert failed["problem"]["type"] in {"memory-limit", "model-crashed"}, failed
        started = tight.log().count("job started")
        again = tight.upload(file.content, *file.inputs)
        assert (again["state"], again["problem"]) == ("failed", failed["problem"])
        assert tight.log().count("job started") == started, "the same worker is not asked again"
        retried = tight.client.post(f"/v1/jobs/{failed['job']}/retry")
        assert (retried.status_code, retried.json()["type"]) == (409, "job-not-retryable")
    with running_service(data_dir=tmp_path) as wide:
        shown = wide.client.get(f"/v1/models/{failed['id']}").json()
        assert (shown["state"], shown["problem"]) == ("failed", failed["problem"])
        assert wide.upload(file.content, *file.inputs)["state"] == "ready"
        assert wide.cut(failed["id"], "self.conv1.weight", [0])["terminal"]
        bad = wide.upload(small_file(2131).content, "x:1x9x8x8")
        started = wide.log().count("job started")
        assert wide.upload(small_file(2131).content, "x:1x9x8x8")["problem"] == bad["problem"]
        assert wide.log().count("job started") == started, "a bad file stays one"


def worker_of(service: RunningService, folder: Path, revision: str) -> subprocess.Popen[bytes]:
    """A worker whose engine has another revision."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"import torchpruner_service.identity as identity\nidentity.GRAPH_REVISION = {revision!r}\n"
    )
    environment = {
        **service.environment,
        "PYTHONPATH": str(folder),
        "REDIS_URL": f"unix://{service.data_dir}/valkey/valkey.sock",
        "TORCHPRUNER_DATA_DIR": str(service.data_dir),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "torchpruner_service.cli", "worker"], env=environment
    )


def test_a_worker_of_another_version_takes_no_job(tmp_path: Path) -> None:
    with running_service("--workers", "0", ready=False) as service:
        old = worker_of(service, tmp_path / "old", "0")
        try:
            service.wait_ready()
            (listed,) = service.client.get("/v1/workers").json()["items"]
            assert listed["engine"] != engine_version()
            file = small_file(2140)
            answer = service.client.post(
                "/v1/models", params={"input": "x:1x3x8x8"}, content=file.content
            )
            model = answer.json()["id"]
            assert "no worker of this service's version" in answer.json()["message"]
            # A long poll: an old worker that took it would have ended it by now.
            shown = service.client.get(f"/v1/models/{model}", params={"wait": 6}).json()
            assert shown["state"] == "queued"
            own = worker_of(service, tmp_path / "own", "1")
            try:
                shown = service.wait_model(model)
                assert (shown["state"], shown["engine"]) == ("ready", engine_version())
            finally:
                own.terminate()
                own.wait(PATIENCE)
        finally:
            old.terminate()
            assert old.wait(PATIENCE) == 0
