"""A deployment on this machine: two API processes, two workers, a Redis and an S3 store of their own,
each started again when it has died."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from torchpruner_service.auth.api_keys import create_key
from torchpruner_service.embedded import EmbeddedValkey
from torchpruner_service.settings import Settings
from torchpruner_service.storage.objects import Objects

BUCKET = "chaos"
START_SECONDS = 120.0
API_PROCESSES = 2
WORKERS = 2


class Deployment:
    """``urls`` are the API processes' addresses; use as ``with``."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tp-chaos-"))
        self.log = self.folder / "log"
        store, *ports = (_free_port() for _ in range(1 + API_PROCESSES))
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self._ports = ports
        self.valkey = EmbeddedValkey(Settings(data_dir=self.folder))
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("TORCHPRUNER_", "AWS_"))},
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store}",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "chaos",
            "AWS_SECRET_ACCESS_KEY": "chaos",
            "STORAGE_URL": f"s3://{BUCKET}",
            "REDIS_URL": self.valkey.url,
            "TORCHPRUNER_AUTH": "on",
            "TORCHPRUNER_WORKERS": "0",
            "TORCHPRUNER_LEASE_SECONDS": "5",
            "TORCHPRUNER_JOB_ATTEMPTS": "100",
            "TORCHPRUNER_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "TORCHPRUNER_LOG_LEVEL": "WARNING",
        }
        self._store_port = store
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Deployment:
        # Whatever reads the store in this process finds it as the service does.
        os.environ.update({k: v for k, v in self.environment.items() if k.startswith("AWS_")})
        self.valkey.start()
        self._start("store")
        _until(lambda: httpx.get(self.environment["AWS_ENDPOINT_URL"]).status_code < 500)
        httpx.put(f"{self.environment['AWS_ENDPOINT_URL']}/{BUCKET}").raise_for_status()
        self.objects = Objects(self.environment["STORAGE_URL"])
        for name in self._names():
            self._start(name)
        for url in self.urls:
            _until(lambda url=url: httpx.get(f"{url}/readyz").json()["workers"] == WORKERS)  # type: ignore[misc]
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._keeper.join()
        for child in self._children.values():
            below = (
                psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
            )
            for process in below:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            child.kill()
            child.wait()
        self.valkey.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def key(self, tenant: str) -> str:
        """A new key of a tenant."""
        return create_key(self.objects, tenant, ["read", "write"])[1]

    def processes(self, kind: str) -> list[psutil.Process]:
        """Living processes of a kind: ``api``, ``supervisor``, ``rq worker``, ``work-horse``,
        ``nursery``, ``sandboxed child``, ``redis`` or ``store``."""
        if kind == "redis":
            mine = psutil.Process().children()
            return [each for each in mine if "valkey" in each.name()]
        if kind in {"api", "supervisor", "store"}:
            prefix = {"api": "api", "supervisor": "worker", "store": "store"}[kind]
            found = [c for name, c in self._children.items() if name.startswith(prefix)]
            return [psutil.Process(child.pid) for child in found if child.poll() is None]
        below = [c for each in self.processes("supervisor") for c in _children(each)]
        if kind in {"rq worker", "nursery"}:
            module = "worker.rq_worker" if kind == "rq worker" else "sandbox.nursery"
            return [each for each in below if module in " ".join(_command(each))]
        parents = self.processes("rq worker" if kind == "work-horse" else "nursery")
        return [child for parent in parents for child in _children(parent)]

    def _names(self) -> list[str]:
        return [f"api{n}" for n in range(API_PROCESSES)] + [f"worker{n}" for n in range(WORKERS)]

    def _start(self, name: str) -> None:
        program = [sys.executable, "-m", "torchpruner_service.cli"]
        if name == "store":
            command = [sys.executable, "-m", "moto.server", "-p", str(self._store_port)]
        elif name.startswith("api"):
            command = [*program, "serve", "--port", str(self._ports[int(name[3:])])]
        else:
            command = [*program, "worker"]
        # What the store says of each request is nobody's.
        with open(os.devnull, "ab") if name == "store" else self.log.open("ab") as sink:
            self._children[name] = subprocess.Popen(
                command,
                env={**self.environment, "TORCHPRUNER_DATA_DIR": str(self.folder / name)},
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while not self._stopping.wait(0.3):
            try:
                self.valkey.keep_alive()
            except RuntimeError:
                continue
            for name in self._names():
                if self._children[name].poll() is not None and not self._stopping.is_set():
                    self._start(name)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.Error:
        return []


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            if holds():
                return
        except (httpx.HTTPError, KeyError, ValueError):
            pass
        if time.monotonic() > end:
            raise RuntimeError("a part of the deployment did not start")
        time.sleep(0.2)
