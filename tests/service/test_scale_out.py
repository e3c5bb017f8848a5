"""Several API processes and a worker on their own, over one Redis and one object store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.service.models import small_file
from tests.service.running import PATIENCE, RunningService, environment, running_service


def test_two_api_processes_are_one_service(tmp_path: Path) -> None:
    with running_service("--workers", "0", ready=False) as first:
        shared = {
            "REDIS_URL": f"unix://{first.data_dir}/valkey/valkey.sock",
            "STORAGE_URL": (first.data_dir / "objects").as_uri(),
            "TORCHPRUNER_AUTH": "off",
            "TORCHPRUNER_WORKERS": "0",
        }
        other = tmp_path / "other"
        other.mkdir()
        second = RunningService(other, environment(**shared))
        second.start()
        worker = subprocess.Popen(
            [sys.executable, "-m", "torchpruner_service.cli", "worker"],
            env={**environment(**shared), "TORCHPRUNER_DATA_DIR": str(tmp_path / "worker")},
        )
        try:
            file = small_file(1701)
            here = first.upload(file.content, *file.inputs, params={"name": "shared"})
            there = second.client.get(f"/v1/models/{here['id']}").json()
            assert there == here
            assert second.upload(file.content, *file.inputs)["id"] == here["id"]
            node = ("self.conv1.weight", [0, 3])
            assert first.cut(here["id"], *node) == second.cut(here["id"], *node)
            started = first.client.post("/v1/uploads", json={"length": len(file.content)}).json()
            path, half = f"/v1/uploads/{started['id']}", len(file.content) // 2
            first.client.patch(path, content=file.content[:half], headers={"Upload-Offset": "0"})
            done = second.client.patch(
                path, content=file.content[half:], headers={"Upload-Offset": str(half)}
            )
            assert done.json()["complete"]
            second.client.delete(f"/v1/models/{here['id']}")
            assert first.client.get(f"/v1/models/{here['id']}").status_code == 404
            # One API process is killed; the other goes on.
            again = first.upload(file.content, *file.inputs)
            assert second.process is not None
            os.kill(second.process.pid, signal.SIGKILL)
            second.process.wait()
            with pytest.raises(httpx.TransportError):
                second.client.get("/healthz")
            assert first.cut(again["id"], *node)["terminal"]
        finally:
            second.stop()
            worker.terminate()
            assert worker.wait(PATIENCE) == 0
