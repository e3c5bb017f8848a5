"""The process that sandboxed children are forked from.

It imports torch, onnx and the engine once (seconds), so that a job does not, and answers
work-horses on a unix socket: a request in, a child forked, its exit status out. When the work-horse
hangs up (it was killed, the job was cancelled or ran out of time) the child is killed.

It is started with an environment that holds no credential and never gets one.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torchpruner_service.parent import end_with
from torchpruner_service.sandbox.child import run_child

PRELOADED = (
    "numpy",
    "scipy.sparse.csgraph",
    "onnx",
    "onnx.shape_inference",
    "torch",
    "torch.onnx",
    "torch.export",
    "torch.onnx._internal.torchscript_exporter.utils",
    "onnxscript",
    "torchpruner_core.onnx_graph",
    "torchpruner_core.exporting",
    "torchpruner_core.coupling.solve",
    "torchpruner_core.operators.registry",
    "torchpruner_core.onnx_pruning",
    "torchpruner_service.sandbox.tasks",
    "torchpruner_service.sandbox.state_cutting",
    "torchpruner_service.sandbox.state_writing",
)

LENGTH = struct.Struct("!I")


@dataclass(slots=True)
class _Running:
    pid: int
    pidfd: int
    connection: socket.socket


class Nursery:
    """Forks one child for each request; ``serve`` returns when the process ``parent`` is gone."""

    def __init__(self, listener: socket.socket, parent: int) -> None:
        self._listener = listener
        self._parent = parent
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._running: dict[int, _Running] = {}

    def serve(self) -> None:
        while os.getppid() == self._parent:
            for key, _ in self._selector.select(timeout=1.0):
                if key.data is None:
                    self._accept()
                elif key.fd == key.data.pidfd:
                    self._finished(key.data)
                else:
                    self._hung_up(key.data)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(10.0)
        try:
            request, pipe = _receive(connection)
        except (OSError, ValueError, EOFError):
            connection.close()
            return
        nursery = os.getpid()
        pid = os.fork()
        if pid == 0:
            end_with(nursery, signal.SIGKILL)
            # The child must not keep the doors of the others open.
            run_child(request, pipe)
            os._exit(0)
        os.close(pipe)
        running = _Running(pid, os.pidfd_open(pid), connection)
        self._running[pid] = running
        self._selector.register(running.pidfd, selectors.EVENT_READ, running)
        self._selector.register(connection, selectors.EVENT_READ, running)
        _tell(connection, {"pid": pid})

    def _hung_up(self, running: _Running) -> None:
        # Work-horses say nothing after the request: readable means closed.
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGKILL)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(running.connection)

    def _finished(self, running: _Running) -> None:
        _, status = os.waitpid(running.pid, 0)
        for watched in (running.pidfd, running.connection):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(watched)
        _tell(running.connection, {"exit": os.waitstatus_to_exitcode(status)})
        running.connection.close()
        os.close(running.pidfd)
        del self._running[running.pid]


def _receive(connection: socket.socket) -> tuple[dict[str, Any], int]:
    head, descriptors, _, _ = socket.recv_fds(connection, LENGTH.size, 1)
    if len(head) < LENGTH.size or len(descriptors) != 1:
        raise EOFError
    (length,) = LENGTH.unpack(head)
    body = bytearray()
    while len(body) < length:
        piece = connection.recv(min(1 << 20, length - len(body)))
        if not piece:
            os.close(descriptors[0])
            raise EOFError
        body += piece
    return json.loads(body), descriptors[0]


def _tell(connection: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(message).encode() + b"\n")


def _preload() -> dict[str, Any]:
    missing = {}
    for name in PRELOADED:
        try:
            import_module(name)
        except Exception as error:  # a part that cannot be imported fails the jobs that need it
            missing[name] = f"{type(error).__name__}: {error}"
    return missing


def main() -> None:
    """``python -m torchpruner_service.sandbox.nursery SOCKET PARENT``: serve until the process of that
    number, which started this one, is gone."""
    path, parent = Path(sys.argv[1]), int(sys.argv[2])
    started = time.monotonic()
    missing = _preload()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.unlink(missing_ok=True)
    listener.bind(str(path))
    os.chmod(path, 0o600)
    listener.listen(64)
    facts = {"seconds": round(time.monotonic() - started, 2), "missing": missing}
    print(json.dumps(facts), flush=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Nursery(listener, parent).serve()


if __name__ == "__main__":
    main()
