"""The work-horse's side: start a task in the nursery and follow it to its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torchpruner_service.problems import Problem
from torchpruner_service.sandbox.confinement import Limits
from torchpruner_service.sandbox.disk_use import disk_used
from torchpruner_service.sandbox.frames import (
    DATA,
    ERROR,
    PROGRESS,
    RESULT,
    FrameError,
    FrameReader,
)
from torchpruner_service.sandbox.nursery import LENGTH

POLL = 0.25
MAX_DETAIL = 4000
_SLUG = re.compile(r"^[a-z][a-z-]{0,39}$")

NURSERY_SECONDS = 60.0
"""How long a task waits for a nursery that imports torch again."""


class TaskFailed(Problem):
    """The sandboxed task ended with an error, which the model caused: final."""

    status: ClassVar[int] = 422

    def __init__(self, problem: dict[str, Any]) -> None:
        fields = dict(problem)
        super().__init__(
            str(fields.pop("detail", "the task failed")),
            slug=str(fields.pop("type", "invalid-model")),
            title=str(fields.pop("title", "The model could not be read")),
        )
        fields.pop("status", None)
        self.fields = fields


class SandboxGone(Exception):
    """The nursery does not answer. Not the model's fault: the job may be tried again."""


class TaskKilled(TaskFailed):
    """The sandboxed process was killed from outside, as the kernel does where memory runs out.

    The model may be at fault or a neighbour: the job may be tried again, but not for ever.
    """


class SandboxUnavailable(Problem):
    """This worker's kernel cannot confine code. The model is not at fault."""

    status: ClassVar[int] = 503
    slug: ClassVar[str] = "sandbox-unavailable"
    title: ClassVar[str] = "The worker cannot confine code"

    def __init__(self, reason: object) -> None:
        super().__init__(
            f"TorchScript and .pt2 files are code, and this worker's kernel cannot confine it "
            f"({reason}); run workers on Linux 5.13 or newer with Landlock, upload ONNX, or set "
            "TORCHPRUNER_SANDBOX=relaxed if every caller is trusted",
            retryable=True,
        )


class TaskCancelled(Exception):
    """The caller asked to stop."""


@dataclass(slots=True)
class Task:
    """One request to the nursery. ``inputs`` are the only files the child may read."""

    name: str
    args: dict[str, Any]
    inputs: Sequence[Path]
    scratch: Path
    limits: Limits
    strict: bool = True
    threads: int = 0
    max_result: int = 1 << 40
    on_progress: Callable[[str, float], None] = field(default=lambda stage, percent: None)
    on_data: Callable[[bytes], None] = field(default=lambda chunk: None)
    stop: Callable[[], bool] = field(default=lambda: False)


def run_task(nursery: Path, task: Task) -> dict[str, Any]:
    """Run a task and return its result.

    Raises :class:`TaskFailed` where the model is at fault (its error, a crash, a limit), its subclass
    :class:`TaskKilled` where somebody else may be,
    :class:`TaskCancelled` when ``task.stop()`` turns true, :class:`SandboxGone` where there is no
    nursery.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    connection: socket.socket | None = None
    try:
        try:
            connection = _connected(nursery, task.stop)
            body = json.dumps(_request(task)).encode()
            socket.send_fds(connection, [LENGTH.pack(len(body))], [writer])
            connection.sendall(body)
        except OSError as error:
            raise SandboxGone(f"the sandbox's nursery does not answer: {error}") from error
        finally:
            os.close(writer)
        return _Follower(task, reader, connection).follow()
    finally:
        # Hanging up is what kills a child that still runs.
        if connection is not None:
            connection.close()
        os.close(reader)


def _connected(nursery: Path, stop: Callable[[], bool]) -> socket.socket:
    """Connect to the nursery; one that is being started again is waited for."""
    deadline = time.monotonic() + NURSERY_SECONDS
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(nursery))
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise
        if stop():
            raise TaskCancelled
        time.sleep(0.1)


def _request(task: Task) -> dict[str, Any]:
    return {
        "task": task.name,
        "args": task.args,
        "inputs": [str(path) for path in task.inputs],
        "scratch": str(task.scratch),
        "limits": task.limits.to_dict(),
        "strict": task.strict,
        "threads": task.threads,
    }


class _Follower:
    def __init__(self, task: Task, reader: int, connection: socket.socket) -> None:
        self._task = task
        self._reader = reader
        self._connection = connection
        self._frames = FrameReader()
        self._pid = 0
        self._received = 0
        self._outcome: dict[str, Any] | None = None
        self._failure: dict[str, Any] | None = None

    def follow(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._task.limits.wall_seconds
        while True:
            if self._task.stop():
                raise TaskCancelled
            if time.monotonic() > deadline:
                raise TaskFailed(_too_slow(self._task.limits.wall_seconds))
            self._watch_memory()
            self._watch_disk()
            ready, _, _ = select.select([self._reader], [], [], POLL)
            if ready and not self._read():
                return self._end()

    def _read(self) -> bool:
        data = os.read(self._reader, 1 << 20)
        self._frames.feed(data)
        try:
            for kind, payload in self._frames.frames():
                self._take(kind, payload)
        except (FrameError, ValueError, KeyError, TypeError) as error:
            raise TaskFailed(_nonsense(error)) from error
        return bool(data)

    def _take(self, kind: bytes, payload: bytes) -> None:
        if kind == DATA:
            self._received += len(payload)
            if self._received > self._task.max_result:
                raise FrameError("more output than a task may give")
            self._task.on_data(payload)
            return
        value = json.loads(payload)
        if not isinstance(value, dict):
            raise FrameError("not an object")
        if kind == PROGRESS:
            self._task.on_progress(str(value["stage"])[:40], min(100.0, float(value["percent"])))
        elif kind == RESULT:
            self._outcome = value
        elif kind == ERROR:
            self._failure = sanitised(value)

    def _watch_memory(self) -> None:
        if not self._pid:
            self._pid = self._hear().get("pid", 0)
        if not self._pid:
            return
        with contextlib.suppress(OSError, ValueError, IndexError):
            resident = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
            if resident * os.sysconf("SC_PAGE_SIZE") > self._task.limits.memory + (2 << 30):
                raise TaskFailed(_too_big(self._task.limits.memory))

    def _watch_disk(self) -> None:
        limit = self._task.limits.file_bytes
        if disk_used(self._task.scratch, limit) > limit:
            raise TaskFailed(_too_much_disk(limit))

    def _hear(self, timeout: float = 0.0) -> dict[str, Any]:
        """Return what the nursery said since the last time."""
        heard: dict[str, Any] = {}
        ready, _, _ = select.select([self._connection], [], [], timeout)
        if ready:
            with contextlib.suppress(OSError):
                for line in self._connection.recv(4096).splitlines():
                    heard.update(json.loads(line))
        return heard

    def _end(self) -> dict[str, Any]:
        if self._failure is not None:
            if self._failure.get("type") == SandboxUnavailable.slug:
                raise SandboxUnavailable(self._failure.get("detail", ""))
            raise TaskFailed(self._failure)
        if self._outcome is not None:
            return self._outcome
        heard = self._hear(timeout=5.0)
        if "exit" not in heard:
            heard |= self._hear(timeout=5.0)
        if "exit" not in heard:
            raise SandboxGone("the sandbox's nursery went away during the task")
        code = int(heard["exit"])
        raise (TaskKilled if code == -signal.SIGKILL else TaskFailed)(_crashed(code))


def _crashed(code: int) -> dict[str, Any]:
    name = f"exit code {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
    if code == -signal.SIGXCPU:
        return _too_slow(0)
    return {
        "type": "model-crashed",
        "title": "The model crashed the process that read it",
        "detail": f"reading or exporting the model ended with {name}; workers like this one do not "
        "try it again. Check that the model loads and exports on your machine with the same inputs.",
        "signal": name,
    }


def _too_slow(seconds: float) -> dict[str, Any]:
    return {
        "type": "time-limit",
        "title": "The model took longer than a job may",
        "detail": "reading or exporting the model did not end in the time a job may use"
        + (f" ({seconds:.0f} s)" if seconds else "")
        + "; it is not tried again within the same limits. Use a smaller input, or raise "
        "TORCHPRUNER_JOB_TIMEOUT and TORCHPRUNER_SANDBOX_CPU_SECONDS, then upload it again.",
    }


def _too_big(limit: int) -> dict[str, Any]:
    return {
        "type": "memory-limit",
        "title": "The model needs more memory than a job may use",
        "detail": f"the job used more than {limit >> 20} MiB; it is not tried again within the same limits. "
        "Use a smaller input, or raise TORCHPRUNER_SANDBOX_MEMORY, then upload it again.",
    }


def _too_much_disk(limit: int) -> dict[str, Any]:
    return {
        "type": "disk-limit",
        "title": "The model needs more disk than a job may use",
        "detail": f"the job wrote more than {limit >> 20} MiB of temporary files; it is not tried again "
        "within the same limits. Raise TORCHPRUNER_SANDBOX_FILE_BYTES, then upload it again.",
    }


def sanitised(problem: dict[str, Any]) -> dict[str, Any]:
    """Return a child's problem as far as it has the form of one: untrusted code may have made it."""
    kind = problem.get("type")
    found: dict[str, Any] = {
        "type": kind if isinstance(kind, str) and _SLUG.match(kind) else "invalid-model",
        "title": str(problem.get("title", "The model could not be read"))[:200],
        "detail": str(problem.get("detail", ""))[:MAX_DETAIL],
    }
    rest = {str(key)[:40]: value for key, value in problem.items() if key not in found}
    if len(json.dumps(rest)) <= MAX_DETAIL:
        found.update(rest)
    return found


def _nonsense(error: Exception) -> dict[str, Any]:
    return {
        "type": "model-crashed",
        "title": "The model disturbed the process that read it",
        "detail": f"the sandbox's answer was not understood ({error}); it is not tried again",
    }
