"""A worker: keeps a nursery and an RQ worker alive, and says in Redis that it is there.

::

    supervisor ─┬─ nursery      (torch, onnx; no credentials) ── sandboxed children
                └─ RQ worker    (Redis, object store)         ── work-horses

The supervisor's word has a short life, so a machine that vanished is noticed within seconds.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from torchpruner_service.identity import engine_version
from torchpruner_service.sandbox import confinement
from torchpruner_service.settings import Settings
from torchpruner_service.state.graph_keys import drop_orphans
from torchpruner_service.state.job_board import JobBoard
from torchpruner_service.state.reconciler import INTERVAL, Reconciler
from torchpruner_service.state.redis_clients import REDIS_ERRORS, retrying_client
from torchpruner_service.state.worker_kind import own_kind
from torchpruner_service.storage.audit_log import trim_all
from torchpruner_service.storage.garbage import collect, sweep_scratch
from torchpruner_service.storage.objects import Objects
from torchpruner_service.worker.horse import NURSERY

HEARTBEAT = 2.0
LIFE = 8
RESTART_DELAY = 1.0
DRAIN_SECONDS = 110.0
TIDY_SECONDS = 3600.0

NURSERY_ENVIRONMENT = (
    "PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TZ",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_NUM_THREADS",
)  # fmt: skip
"""All that the nursery gets of the environment: no URL, key or password has such a name."""

log = structlog.get_logger(__name__)


class Supervisor:
    """One worker. :meth:`run` blocks until :meth:`stop`, then drains."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}".replace(".", "-")
        self._folder = Path(tempfile.mkdtemp(prefix="tp-nursery-"))
        self._socket = self._folder / "nursery.sock"
        self._connection = retrying_client(settings.effective_redis_url)
        self._board = JobBoard(self._connection, Objects(settings.effective_storage_url), settings)
        self._reconciler = Reconciler(self._board)
        self._nursery: subprocess.Popen[bytes] | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._tidied = -TIDY_SECONDS

    def stop(self, *_: Any) -> None:
        self._stopping.set()

    def run(self) -> None:
        self._explain()
        last_look = 0.0
        try:
            while not self._stopping.is_set():
                self._keep_alive()
                try:
                    self._announce()
                    if time.monotonic() - last_look > INTERVAL:
                        last_look = time.monotonic()
                        self._reconciler.step()
                        self._tidy()
                except REDIS_ERRORS as error:
                    log.warning("Redis does not answer", error=str(error))
                except Exception:
                    log.exception("looking for stuck jobs failed")
                self._stopping.wait(HEARTBEAT / 2)
        finally:
            self._drain()

    def _explain(self) -> None:
        lacking = confinement.missing()
        if lacking and self._settings.sandbox == "require":
            log.error(
                "this kernel cannot confine code: TorchScript and .pt2 uploads will be "
                "refused here",
                missing=lacking,
            )
        wants_gpu = "CUDAExecutionProvider" in self._settings.execution_providers
        if wants_gpu and not has_gpu():
            log.warning("no CUDA device on this machine: measurements run on the CPU")

    def _keep_alive(self) -> None:
        if self._nursery is None or self._nursery.poll() is not None:
            if self._nursery is not None:
                log.error("the nursery died; starting it again", code=self._nursery.returncode)
                self._stopping.wait(RESTART_DELAY)
            self._nursery = self._start_nursery()
        if self._worker is None or self._worker.poll() is not None:
            if self._worker is not None:
                log.error("the RQ worker died; starting it again", code=self._worker.returncode)
                self._free_leases()
                self._stopping.wait(RESTART_DELAY)
            if not self._stopping.is_set():
                self._worker = self._start_worker()

    def _start_nursery(self) -> subprocess.Popen[bytes]:
        environment = {
            key: value for key, value in os.environ.items() if key in NURSERY_ENVIRONMENT
        }
        environment |= {
            "HOME": str(self._folder),
            "PYTHONWARNINGS": "ignore",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        # HOME is nobody's: libraries that keep a cache there must not find the operator's.
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "torchpruner_service.sandbox.nursery"),
                *(str(self._socket), str(os.getpid())),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd=self._folder,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            log.error("the nursery did not start", code=process.wait())
            return process
        facts = json.loads(line)
        log.info("nursery ready", **facts)
        if facts["missing"]:
            log.error("parts of the engine cannot be imported", missing=facts["missing"])
        return process

    def _start_worker(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, NURSERY: str(self._socket)}
        self._generation = secrets.token_hex(2)
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "torchpruner_service.worker.rq_worker",
                f"{self.name}-{self._generation}",
                str(os.getpid()),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _free_leases(self) -> None:
        """Let go of what the dead RQ worker's work-horse held: it died with its parent."""
        prefix = f"{self.name}-{self._generation}:"
        try:
            for job in self._board.active():
                holder = self._board.lease_holder(job)
                if holder is not None and holder.startswith(prefix):
                    self._board.drop_lease(job, holder)
        except REDIS_ERRORS:
            pass

    def _announce(self) -> None:
        keys = self._board.keys
        facts = {
            "name": self.name,
            "host": socket.gethostname(),
            "queues": list(self._settings.queues),
            "engine": engine_version(),
            "kind": own_kind(self._settings),
            "device": "cuda" if has_gpu() else "cpu",
            "runs_code": not confinement.missing() or self._settings.sandbox == "relaxed",
        }
        pipe = self._connection.pipeline(transaction=False)
        pipe.set(keys.worker(self.name), json.dumps(facts), ex=LIFE)
        pipe.sadd(keys.workers, self.name)
        pipe.execute()

    def _tidy(self) -> None:
        """Once an hour, one worker of all removes what nobody owns; each its own leftovers."""
        if time.monotonic() - self._tidied < TIDY_SECONDS:
            return
        self._tidied = time.monotonic()
        settings = self._settings
        sweep_scratch(settings.scratch_dir, max(3600.0, 2.0 * settings.job_timeout))
        key = self._board.keys.collecting
        if self._connection.set(key, "1", nx=True, ex=int(TIDY_SECONDS * 0.9)):
            # A large store takes its time, and this thread's word must not be late.
            threading.Thread(target=self._collect, name="garbage", daemon=True).start()

    def _collect(self) -> None:
        try:
            done = collect(self._board.objects, upload_ttl=self._settings.upload_ttl)
            settings = self._settings
            events = trim_all(
                self._board.objects, most=settings.audit_events, days=settings.audit_days
            )
            graphs = drop_orphans(self._connection, self._board.keys, self._board.objects)
        except Exception:
            log.exception("collecting garbage failed")
        else:
            log.info("collected garbage", **asdict(done), cached_graphs=graphs, events=events)

    def _drain(self) -> None:
        """Take no more jobs, let the running one end, leave nothing behind."""
        try:
            keys = self._board.keys
            self._connection.srem(keys.workers, self.name)
            self._connection.delete(keys.worker(self.name))
        except REDIS_ERRORS:
            pass
        if self._worker is not None and self._worker.poll() is None:
            self._worker.send_signal(signal.SIGTERM)
            try:
                self._worker.wait(timeout=DRAIN_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._worker.pid, signal.SIGKILL)
        if self._nursery is not None and self._nursery.poll() is None:
            self._nursery.terminate()
        shutil.rmtree(self._folder, ignore_errors=True)


def has_gpu() -> bool:
    """Whether an NVIDIA device is visible; CUDA is not initialised to find out."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "0") != ""


def run_worker(settings: Settings) -> None:
    """Run one worker until SIGTERM or SIGINT."""
    supervisor = Supervisor(settings)
    signal.signal(signal.SIGTERM, supervisor.stop)
    signal.signal(signal.SIGINT, supervisor.stop)
    supervisor.run()
