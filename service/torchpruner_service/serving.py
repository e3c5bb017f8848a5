"""``torchpruner-service serve``: an API process, and by default everything it needs beside it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import structlog
import uvicorn

from torchpruner_service.api.app import create_app
from torchpruner_service.connections import MAX_HEAD, patient_protocol, room_for_connections
from torchpruner_service.embedded import EmbeddedValkey
from torchpruner_service.folder_lock import FolderLock
from torchpruner_service.settings import Settings

LOOK_SECONDS = 0.5

log = structlog.get_logger(__name__)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then finish open requests and running jobs, and stop."""
    lock = FolderLock(settings.data_dir)
    lock.take(alone=settings.embedded)
    try:
        _serve(settings, lock)
    finally:
        lock.release()


def _serve(settings: Settings, lock: FolderLock) -> None:
    with _companions(settings) as configured:
        room = room_for_connections(configured)
        config = uvicorn.Config(
            create_app(configured),
            host=configured.host,
            port=configured.port,
            log_config=None,
            timeout_graceful_shutdown=25,
            timeout_keep_alive=65,
            server_header=False,
            http=patient_protocol(configured, room),
            # Connections without a request give way; where all have one, the next is a 503.
            limit_concurrency=room + 1,
            h11_max_incomplete_event_size=MAX_HEAD,
        )
        _Announced(config, configured, lock).run()


class _Announced(uvicorn.Server):
    """Prints where the service is once it listens; port 0 is any free one."""

    def __init__(self, config: uvicorn.Config, settings: Settings, lock: FolderLock) -> None:
        super().__init__(config)
        self._settings = settings
        self._lock = lock

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises a caught signal again when it has shut down, which would end the process
        # before the running jobs have.
        caught = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        if not self.started:
            return
        port = self.servers[0].sockets[0].getsockname()[1]
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        url = f"http://{host}:{port}"
        self._lock.tell(url=url)
        log.info("serving", url=url, docs=f"{url}/docs", auth=self._settings.auth_required)
        print(f"torchpruner-service: {url}   docs: {url}/docs", flush=True)


@contextlib.contextmanager
def _companions(settings: Settings) -> Iterator[Settings]:
    """Start Valkey and the workers that the settings ask for; stop them in the end."""
    valkey = None
    if settings.embedded:
        valkey = EmbeddedValkey(settings)
        valkey.start()
        loopback_only = settings.auth_required
        # Everything that is started from here finds this Valkey under the usual name.
        os.environ["REDIS_URL"] = valkey.url
        os.environ["TORCHPRUNER_AUTH"] = "on" if loopback_only else "off"
        settings = settings.model_copy(
            update={"redis_url": valkey.url, "auth": "on" if loopback_only else "off"}
        )
    os.environ["TORCHPRUNER_DATA_DIR"] = str(settings.data_dir)
    workers = [_start_worker() for _ in range(settings.workers)]
    stopping = threading.Event()
    keeper = _Keeper(valkey, workers, stopping)
    keeper.start()
    try:
        yield settings
    finally:
        # A second signal must not interrupt the draining.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stopping.set()
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            try:
                worker.wait(timeout=120)
            except subprocess.TimeoutExpired:
                worker.kill()
        if valkey is not None:
            valkey.stop()
        keeper.finish()


class _Keeper(threading.Thread):
    """Starts again what has died."""

    def __init__(
        self,
        valkey: EmbeddedValkey | None,
        workers: list[subprocess.Popen[bytes]],
        stopping: threading.Event,
    ) -> None:
        super().__init__(name="keeper", daemon=True)
        self._valkey = valkey
        self._workers = workers
        self._stopping = stopping
        self._finished = threading.Event()

    def finish(self) -> None:
        """End the thread: last of all, since what it started dies with it."""
        self._finished.set()
        self.join(timeout=5)

    def run(self) -> None:
        while not self._finished.wait(LOOK_SECONDS):
            if self._stopping.is_set():
                continue
            try:
                if self._valkey is not None:
                    self._valkey.keep_alive()
            except RuntimeError:
                log.exception("Valkey does not start")
            for number, worker in enumerate(self._workers):
                if worker.poll() is not None and not self._stopping.is_set():
                    log.error("a worker died; starting another", code=worker.returncode)
                    self._workers[number] = _start_worker()


def _start_worker() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "torchpruner_service.cli",
            "worker",
            "--with-parent",
            str(os.getpid()),
        ],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
