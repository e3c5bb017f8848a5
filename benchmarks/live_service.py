"""A service of one API process on its embedded default, started for a measurement and stopped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

START_LIMIT = 60.0


@dataclass(frozen=True)
class LiveService:
    """``client`` is bound to the service's address; ``process`` is its API process."""

    url: str
    client: httpx.Client
    process: psutil.Process
    data_dir: Path

    def upload(self, data: bytes, **query: str) -> dict[str, Any]:
        """Upload a file's bytes and wait for its graph; returns the model's view."""
        answer = self.client.post("/v1/models", content=data, params=query)
        answer.raise_for_status()
        return self.wait(answer.json()["id"])

    def wait(self, model: str, limit: float = 300.0) -> dict[str, Any]:
        """Wait for a model's graph. Raises ``RuntimeError`` where it failed or takes too long."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            view: dict[str, Any] = self.client.get(f"/v1/models/{model}?wait=30").json()
            if view["state"] == "ready":
                return view
            if view["state"] in {"failed", "cancelled"}:
                raise RuntimeError(f"the build ended as {view['state']}: {view['problem']}")
        raise RuntimeError(f"model {model} is not ready after {limit:.0f} s")


@contextmanager
def live_service(**settings: str) -> Iterator[LiveService]:
    """Start the service in a temporary folder on a free port, and stop it in the end.

    ``settings`` are environment variables. Raises ``RuntimeError`` where it does not start.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TORCHPRUNER_", "REDIS_URL", "STORAGE_URL"))
    }
    program = Path(sys.executable).with_name("torchpruner-service")
    # Short, since the embedded server's socket lies inside and a socket's path has a length limit.
    with tempfile.TemporaryDirectory(prefix="tp-bench-") as folder:
        log = Path(folder, "service.log")
        with log.open("wb") as sink:
            child = subprocess.Popen(
                [program, "serve", "--port", "0", "--data-dir", folder],
                env={**kept, "TORCHPRUNER_LOG_LEVEL": "WARNING", **settings},
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        try:
            url = _address(child, log)
            with httpx.Client(base_url=url, timeout=300.0) as client:
                _wait_ready(client, log)
                yield LiveService(url, client, psutil.Process(child.pid), Path(folder))
        finally:
            child.terminate()
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _address(child: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and child.poll() is None:
        found = re.search(r"torchpruner-service: (http://\S+)", log.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"the service did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _wait_ready(client: httpx.Client, log: Path) -> None:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end:
        if client.get("/readyz").json()["workers"]:
            return
        time.sleep(0.1)
    raise RuntimeError(f"the service is not ready:\n{log.read_text(errors='replace')[-2000:]}")


def told_by_client(program: str) -> dict[str, Any]:
    """Run a client's Python ``program`` beside a service of its own; return the JSON of its last line.

    A process by itself, so that what it tells of memory is the client side's alone. The service's
    address is its first argument. Raises ``RuntimeError`` where it fails.
    """
    with live_service() as service:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, service.url],
            capture_output=True,
            text=True,
            timeout=600,
        )
    if done.returncode:
        raise RuntimeError(f"the client failed:\n{done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told
