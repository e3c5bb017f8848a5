"""Parts of the service are killed for real: no wrong answer, no lost upload, no stuck job."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import psutil
import pytest
from redis import Redis

from tests.service.models import ModelFile, small_file
from tests.service.running import PATIENCE, RunningService, running_service, until
from torchpruner_client import Client, NoWorkerError, operations
from torchpruner_service.state.keys import Keys

SUPERVISOR = "worker"
RQ_WORKER = "torchpruner_service.worker.rq_worker"
NURSERY = "torchpruner_service.sandbox.nursery"


RUNS = count(250)


@pytest.fixture(scope="module")
def mistreated() -> Iterator[RunningService]:
    with running_service(TORCHPRUNER_LEASE_SECONDS="3") as running:
        yield running


@pytest.fixture
def own(mistreated: RunningService) -> RunningService:
    """A service that is whole again after what the test before did to it."""
    parts = ("--with-parent", NURSERY, RQ_WORKER)
    mistreated.wait_ready()
    until(lambda: [len(mistreated.processes(part)) for part in parts] == [1, 1, 1])
    until(lambda: not work_horses(mistreated))
    return mistreated


def kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)


def work_horses(service: RunningService) -> list[psutil.Process]:
    found = []
    for worker in service.processes(RQ_WORKER):
        found += [p for p in psutil.process_iter(["ppid"]) if p.info["ppid"] == worker.pid]
    return found


def sandboxed(service: RunningService) -> list[psutil.Process]:
    return [child for each in service.processes(NURSERY) for child in each.children()]


def start_measuring(service: RunningService, file: ModelFile, batch: int = 1) -> str:
    """Start a job that takes some seconds for each of the batch; return where it is."""
    model = service.upload(file.content, f"x:{batch}x3x64x64:float32")["id"]
    answer = service.client.post(
        f"/v1/models/{model}/latency", json={"runs": next(RUNS), "warm_up": 1, "threads": 1}
    )
    location = answer.headers["location"]
    until(lambda: service.client.get(location).json()["stage"] == "measuring")
    return str(location)


def test_a_killed_work_horse_is_followed_by_another(
    own: RunningService, torchscript: ModelFile
) -> None:
    location = start_measuring(own, torchscript)
    (horse,) = work_horses(own)
    kill(horse)
    job = own.wait_job(location)
    assert job["state"] == "ready" and job["attempt"] >= 2


def test_a_killed_worker_is_replaced_and_its_job_done(
    own: RunningService, torchscript: ModelFile
) -> None:
    location = start_measuring(own, torchscript)
    (worker,) = own.processes(RQ_WORKER)
    kill(worker)
    job = own.wait_job(location)
    assert job["state"] == "ready" and job["attempt"] >= 2


@pytest.mark.parametrize("program", [(NURSERY, "{folder}/socket"), (RQ_WORKER, "orphan")])
def test_what_starts_after_its_parent_was_killed_ends(
    service: RunningService, tmp_path: Path, program: tuple[str, str]
) -> None:
    """As when a supervisor dies while its parts still import: left alone they would take jobs for ever."""
    module, argument = program
    nobody = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
    )
    command = [
        sys.executable,
        "-m",
        module,
        argument.format(folder=tmp_path),
        nobody.stdout.strip(),
    ]
    valkey = f"unix://{service.data_dir}/valkey/valkey.sock"
    environment = {**os.environ, "REDIS_URL": valkey, "TORCHPRUNER_DATA_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, timeout=PATIENCE, capture_output=True)
    assert done.returncode in {0, -signal.SIGTERM}, done.stderr


def test_a_killed_supervisor_is_replaced_and_its_job_done(
    own: RunningService, torchscript: ModelFile
) -> None:
    location = start_measuring(own, torchscript)
    (supervisor,) = own.processes("--with-parent")
    kill(supervisor)
    job = own.wait_job(location)
    assert job["state"] == "ready" and job["attempt"] >= 2


def test_a_killed_nursery_is_replaced_and_its_job_done(
    own: RunningService, torchscript: ModelFile
) -> None:
    location = start_measuring(own, torchscript)
    (nursery,) = own.processes(NURSERY)
    kill(nursery)
    job = own.wait_job(location)
    assert job["state"] == "ready" and job["attempt"] >= 2


def test_a_killed_sandboxed_process_is_followed_by_another(
    own: RunningService, torchscript: ModelFile
) -> None:
    location = start_measuring(own, torchscript)
    (child,) = sandboxed(own)
    kill(child)
    job = own.wait_job(location)
    assert job["state"] == "ready" and job["attempt"] == 2


def test_a_model_whose_process_is_killed_each_time_fails(
    own: RunningService, torchscript: ModelFile
) -> None:
    location = start_measuring(own, torchscript)

    def failed() -> bool:
        for child in sandboxed(own):
            kill(child)
        return bool(own.client.get(location).json()["state"] == "failed")

    until(failed)
    shown = own.client.get(location).json()
    assert shown["attempt"] == 3
    assert shown["problem"]["type"] == "model-crashed"
    assert shown["problem"]["signal"] == "SIGKILL"


def test_a_job_whose_worker_is_lost_again_and_again_fails(
    own: RunningService, torchscript: ModelFile
) -> None:
    location = start_measuring(own, torchscript)

    def failed() -> bool:
        for horse in work_horses(own):
            kill(horse)
        return bool(own.client.get(location).json()["state"] == "failed")

    until(failed)
    assert own.client.get(location).json()["problem"]["type"] == "worker-lost"
    assert own.upload(small_file(501).content, "x:1x3x8x8")["state"] == "ready"


def test_a_cancelled_job_stops_at_once_and_the_next_one_runs(
    own: RunningService, torchscript: ModelFile
) -> None:
    # Were it not stopped, the next one would wait longer for it than this test waits.
    location = start_measuring(own, torchscript, batch=64)
    assert own.client.delete(location).status_code == 204
    assert own.client.get(location).json()["state"] == "cancelled"
    assert own.upload(small_file(502).content, "x:1x3x8x8")["state"] == "ready"


def test_a_killed_valkey_comes_back_with_its_jobs(own: RunningService) -> None:
    model = own.upload(small_file(503).content, "x:1x3x8x8")["id"]
    assert own.process is not None
    for child in psutil.Process(own.process.pid).children():
        if "valkey-server" in child.name():
            kill(child)
    # What is asked meanwhile waits, is answered from memory, or is a 503; never something wrong.
    for _ in range(20):
        answer = own.client.post(
            f"/v1/models/{model}/cut-analysis", json={"node": "self.conv1.weight", "index": [0]}
        )
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 200:
            assert answer.json()["terminal"]["self.conv1.weight"][0] == [0]
    own.wait_ready()
    assert own.upload(small_file(504).content, "x:1x3x8x8")["state"] == "ready"


def test_an_empty_redis_is_rebuilt_from_the_object_store() -> None:
    files = [small_file(510 + number) for number in range(3)]
    with running_service() as service:
        ready = service.upload(files[0].content, *files[0].inputs, params={"name": "kept"})
        derived_from = service.cut(ready["id"], "self.conv1.weight", [0])
        derived_from.pop("model")
        derived = service.client.post(
            f"/v1/models/{ready['id']}/derive", json={"result": derived_from}
        ).json()
        artifact = service.artifact(ready["id"], "pruned-weights", result=derived_from)
        failed = service.upload(files[1].content, "x:1x5x8x8")
        assert failed["state"] == "failed"
        assert service.process is not None
        # The worker stops first, so that the last upload is acknowledged and not begun.
        frozen = [*service.processes("--with-parent"), *service.processes(RQ_WORKER)]
        for process in frozen:
            process.suspend()
        waiting = service.client.post(
            "/v1/models", params={"input": "x:1x3x8x8"}, content=files[2].content
        ).json()
        assert waiting["state"] == "queued"
        children = psutil.Process(service.process.pid).children(recursive=True)
        os.killpg(service.process.pid, signal.SIGKILL)
        service.process.wait()
        # A suspended process does not hear that its parent is gone.
        for process in frozen:
            kill(process)
        assert not psutil.wait_procs(children, PATIENCE)[1]
        shutil.rmtree(service.data_dir / "valkey")
        service.start()
        service.wait_ready()
        listed = service.client.get("/v1/models").json()["items"]
        assert {item["id"] for item in listed} == {
            ready["id"],
            derived["id"],
            failed["id"],
            waiting["id"],
        }
        assert {item["id"]: item for item in listed}[ready["id"]]["name"] == "kept"
        assert service.wait_model(waiting["id"])["state"] == "ready"
        assert service.wait_model(failed["id"])["problem"] == failed["problem"]
        assert service.cut(ready["id"], "self.conv1.weight", [0])["terminal"]
        assert service.cut(derived["id"], "self.conv1.weight", [0])["terminal"]
        assert service.client.get(artifact["content"]).status_code == 200


def test_an_api_process_that_is_killed_loses_no_acknowledged_upload() -> None:
    with running_service(TORCHPRUNER_LEASE_SECONDS="3") as service:
        acknowledged: list[str] = []
        stopping = threading.Event()

        def send() -> None:
            seed = 600
            while not stopping.is_set():
                seed += 1
                try:
                    answer = httpx.post(
                        f"{service.url}/v1/models",
                        params={"input": "x:1x3x8x8"},
                        content=small_file(seed).content,
                        timeout=PATIENCE,
                    )
                    if answer.status_code == 202:
                        acknowledged.append(answer.json()["id"])
                except httpx.HTTPError:
                    return

        sender = threading.Thread(target=send)
        sender.start()
        until(lambda: len(acknowledged) > 3)
        service.kill()
        stopping.set()
        sender.join()
        service.start()
        service.wait_ready()
        for model in acknowledged:
            assert service.wait_model(model)["state"] == "ready"


def test_without_a_worker_it_is_said_and_the_job_waits() -> None:
    with running_service("--workers", "0", ready=False) as service:
        ready = service.client.get("/readyz")
        # Built graphs are answered without one: the process must stay behind its load balancer.
        assert (ready.status_code, ready.json()["ready"], ready.json()["workers"]) == (200, True, 0)
        assert "torchpruner-service worker" in ready.json()["message"]
        assert "torchpruner_workers 0.0" in service.client.get("/metrics").text
        file = small_file(520)
        shown = service.client.post(
            "/v1/models", params={"input": "x:1x3x8x8"}, content=file.content
        ).json()
        assert shown["state"] == "queued" and "no worker is running" in shown["message"]
        redis = Redis(unix_socket_path=str(service.data_dir / "valkey" / "valkey.sock"))
        assert redis.llen(Keys().waiting("build")) == 1, "autoscaling reads this list"
        asked = service.client.get(f"/v1/models/{shown['id']}/modules")
        assert (asked.status_code, asked.json()["type"]) == (409, "model-not-ready")
        assert "no worker is running" in asked.json()["detail"]
        patience, operations.NO_WORKER_PATIENCE = operations.NO_WORKER_PATIENCE, 1.0
        try:
            with Client(service.url, progress=False) as client, pytest.raises(NoWorkerError):
                client.model(shown["id"]).wait()
        finally:
            operations.NO_WORKER_PATIENCE = patience
        worker = subprocess.Popen(
            [sys.executable, "-m", "torchpruner_service.cli", "worker"],
            env={
                **service.environment,
                "REDIS_URL": f"unix://{service.data_dir}/valkey/valkey.sock",
                "TORCHPRUNER_DATA_DIR": str(service.data_dir),
            },
        )
        try:
            assert service.wait_model(shown["id"])["state"] == "ready"
            assert service.client.get("/readyz").json()["workers"] == 1
        finally:
            worker.terminate()
            assert worker.wait(PATIENCE) == 0
        until(lambda: not service.client.get("/readyz").json()["workers"])
        assert service.cut(shown["id"], "self.conv1.weight", [1])["terminal"]


def test_stopping_drains_the_running_job(torchscript: ModelFile) -> None:
    with running_service() as service:
        location = start_measuring(service, torchscript)
        job = location.rpartition("/")[2]
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE) == 0
        ended = [line for line in service.log().splitlines() if '"job ended"' in line]
        assert [line for line in ended if job in line and '"state": "ready"' in line]
        until(
            lambda: (
                not [
                    p
                    for p in psutil.process_iter(["cmdline"])
                    if str(service.data_dir) in str(p.info["cmdline"])
                ]
            )
        )
