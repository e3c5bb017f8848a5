"""A real service for tests: uvicorn, an RQ worker, Valkey, on a free port, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

# What a quiet machine does within a second or two: a busy one is given this long.
PATIENCE = 150.0


def until(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something holds; fail where it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"it does not hold after {seconds:.0f} s"
        time.sleep(0.05)


def unused_port() -> int:
    """A port for somebody who listens later: below those that the system gives to anybody else."""
    while True:
        number = random.SystemRandom().randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", number))
            return number


class RunningService:
    """One service. ``log()`` is what it has written; ``client`` speaks to it without retries."""

    def __init__(self, data_dir: Path, environment: dict[str, str], *arguments: str) -> None:
        self.data_dir = data_dir
        self.environment = environment
        self._arguments = arguments
        self._log_path = data_dir / "service.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.client = httpx.Client(timeout=PATIENCE)

    def start(self, *, port: int = 0) -> None:
        offset = self._log_path.stat().st_size if self._log_path.exists() else 0
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "torchpruner_service.cli",
                    "serve",
                    *("--port", str(port), "--data-dir", str(self.data_dir)),
                    *self._arguments,
                ],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            text = self._log_path.read_bytes()[offset:].decode(errors="replace")
            found = re.search(r"^torchpruner-service: (http://\S+)", text, re.MULTILINE)
            if found:
                self.url = found[1]
                self.client.base_url = httpx.URL(self.url)
                return
            time.sleep(0.02)
        raise AssertionError(f"the service did not start:\n{self.log()[-3000:]}")

    def wait_ready(self, seconds: float = PATIENCE) -> None:
        """Wait until a worker is there."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self.client.get("/readyz").json()["workers"]:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"the service is not ready:\n{self.log()[-3000:]}")

    @property
    def store(self) -> Path:
        """The folder of the local object store, whose name is secret."""
        (folder,) = (self.data_dir / "objects").glob("store-*")
        return folder

    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.client.close()

    def kill(self) -> None:
        """Kill the process that serves, and wait until those that it started have noticed."""
        assert self.process is not None
        started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        assert not psutil.wait_procs(started, PATIENCE)[1]

    # What tests do again and again

    def upload(self, content: bytes, *inputs: str, **options: Any) -> dict[str, Any]:
        """Upload a model and wait for its end state; return its view."""
        params: dict[str, Any] = {"input": list(inputs), **options.pop("params", {})}
        answer = self.client.post("/v1/models", params=params, content=content, **options)
        assert answer.status_code in (200, 202), answer.text
        return self.wait_model(answer.json()["id"])

    def wait_model(self, model: str, seconds: float = PATIENCE) -> dict[str, Any]:
        return self._wait(f"/v1/models/{model}", seconds)

    def wait_job(self, location: str, seconds: float = PATIENCE) -> dict[str, Any]:
        return self._wait(location, seconds)

    def cut(self, model: str, node: str, index: list[int], dim: int = 0) -> dict[str, Any]:
        body = {"node": node, "index": index, "dim": dim}
        answer = self.client.post(f"/v1/models/{model}/cut-analysis", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def artifact(self, model: str, kind: str, **body: Any) -> dict[str, Any]:
        """Ask for an artifact and wait until it is made."""
        answer = self.client.post(f"/v1/models/{model}/{kind}", json=body)
        assert answer.status_code in (200, 202), answer.text
        return self._wait(answer.headers["location"], PATIENCE)

    def processes(self, module: str) -> list[psutil.Process]:
        """Living processes of this service that run ``python -m <module>``, without their forks."""
        assert self.process is not None
        found = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if module in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    found[child.pid] = (child, child.ppid())
        return [process for process, parent in found.values() if parent not in found]

    def _wait(self, path: str, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        shown: dict[str, Any] = {}
        while time.monotonic() < deadline:
            try:
                shown = self.client.get(path, params={"wait": 5}).json()
            except httpx.TransportError:
                time.sleep(0.2)
                continue
            if shown.get("state") in {"ready", "failed", "cancelled"}:
                return shown
            time.sleep(0.02)
        raise AssertionError(f"{path} did not end in {seconds} s: {shown}\n{self.log()[-3000:]}")


def environment(**settings: str) -> dict[str, str]:
    """The environment of a service: this one without its settings, and ``settings``."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TORCHPRUNER_", "REDIS_", "STORAGE_", "AWS_", "OTEL_"))
    }
    limits = {"OMP_NUM_THREADS": "1", "TORCHPRUNER_THREADS": "1"}
    return {**kept, **limits, **settings}


@contextmanager
def running_service(
    *arguments: str, ready: bool = True, data_dir: Path | None = None, **settings: str
) -> Iterator[RunningService]:
    """Start a service with these ``TORCHPRUNER_*`` (or other) settings, and stop it in the end."""
    with tempfile.TemporaryDirectory(prefix="tp-test-") as folder:
        service = RunningService(data_dir or Path(folder), environment(**settings), *arguments)
        try:
            service.start()
            if ready:
                service.wait_ready()
            yield service
        finally:
            service.stop()
