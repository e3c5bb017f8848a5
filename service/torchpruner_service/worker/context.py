"""What a job's handler works with: its record, the stores, a folder of its own and the sandbox."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchpruner_service.problems import NotFound, Unavailable
from torchpruner_service.sandbox.confinement import Limits
from torchpruner_service.sandbox.runner import Task, TaskCancelled, run_task
from torchpruner_service.settings import Settings
from torchpruner_service.state.job_board import JobBoard
from torchpruner_service.state.job_record import JobRecord
from torchpruner_service.storage import layout
from torchpruner_service.storage.objects import Objects
from torchpruner_service.storage.tree_removal import remove_tree

PROGRESS_SECONDS = 0.1

STAGES = frozenset(
    {
        "comparing",
        "coupling",
        "cutting",
        "done",
        "exported",
        "exporting",
        "inferring shapes",
        "measuring",
        "planning",
        "reading",
        "reading weights",
        "solving",
        "writing",
    }
)
"""What a sandboxed task may say it is at: the names become labels of metrics."""


@dataclass(slots=True)
class JobContext:
    """Made by the work-horse for one attempt of one job.

    ``folder`` is private to the attempt and removed after it; ``stop`` says whether the job was
    cancelled or taken away.
    """

    record: JobRecord
    board: JobBoard
    objects: Objects
    settings: Settings
    folder: Path
    nursery: Path
    stop: Callable[[], bool]
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds spent in each stage so far."""
    _stage: tuple[str, float] | None = None

    def stage(self, name: str, percent: float) -> None:
        """Report where the job is. Raises ``TaskCancelled`` where it should not go on."""
        now = time.monotonic()
        if self._stage is None or self._stage[0] != name:
            self.finish_stage()
            self._stage = (name, now)
        if not self.board.progress(self.record, name, percent):
            raise TaskCancelled

    def finish_stage(self) -> None:
        if self._stage is not None:
            name, since = self._stage
            self.stages[name] = self.stages.get(name, 0.0) + time.monotonic() - since
            self._stage = None

    def blob_file(self, digest: str) -> Path:
        """Return a local file with a blob's bytes: the stored file under another name where that is
        possible, so that the sandbox never learns a path of the store.

        Raises ``NotFound`` where it is gone, or its bytes are not those that were uploaded.
        """
        key = layout.blob(digest)
        path = self.folder / f"blob-{digest[:16]}"
        if path.exists():
            return path
        if not self.objects.exists(key) and not self.objects.recover(key):
            raise NotFound(
                f"the uploaded file {digest} is no longer stored; upload it again",
                slug="blob-missing",
                retryable=True,
            )
        stored = self.objects.local_path(key)
        if stored is not None:
            with contextlib.suppress(OSError):
                os.link(stored, path)
        try:
            if not path.exists():
                self.objects.fetch(key, path)
        except KeyError as error:
            raise Unavailable(f"the uploaded file {digest} went while it was read") from error
        self._check(path, digest, on_this_disk=stored is not None)
        return path

    def _check(self, path: Path, digest: str, *, on_this_disk: bool) -> None:
        """Compare a blob's bytes with its name: disks and networks damage files without a word."""
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                return
        path.unlink()
        if not on_this_disk:
            raise Unavailable(f"the uploaded file {digest} arrived damaged from the object store")
        # Away with it: the same upload again would find a file of this name and size in place.
        self.objects.delete(layout.blob(digest))
        raise NotFound(
            f"the stored file {digest} is damaged: its bytes are not those that were uploaded. It was "
            "removed; upload it again",
            slug="blob-damaged",
            retryable=True,
        )

    def run(
        self,
        task: str,
        args: dict[str, Any],
        inputs: list[Path],
        *,
        on_data: Callable[[bytes], None] = lambda chunk: None,
        span: tuple[float, float] = (0.0, 100.0),
        code: bool = True,
        gpu: bool = False,
    ) -> dict[str, Any]:
        """Run a task in the sandbox; its 0 to 100 percent become ``span`` of the job's.

        ``code`` says whether an input may carry code: then a kernel that cannot confine it is an
        error, unless the settings relax that.
        """
        settings = self.settings
        scratch = self.folder / f"scratch-{task}"
        scratch.mkdir(mode=0o700, exist_ok=True)
        start, end = span

        told = 0.0

        def on_progress(stage: str, percent: float) -> None:
            # Untrusted code may say anything, as often as it likes.
            nonlocal told
            stage = stage if stage in STAGES else "working"
            now = time.monotonic()
            changed = self._stage is not None and self._stage[0] != stage
            if now - told > (PROGRESS_SECONDS / 5 if changed else PROGRESS_SECONDS):
                told = now
                self.stage(stage, start + (end - start) * percent / 100.0)

        try:
            return run_task(
                self.nursery,
                Task(
                    task,
                    args,
                    inputs,
                    scratch,
                    Limits(
                        memory=settings.sandbox_memory,
                        cpu_seconds=settings.sandbox_cpu_seconds,
                        wall_seconds=settings.job_timeout,
                        files=settings.sandbox_files,
                        file_bytes=settings.sandbox_file_bytes,
                        gpu=gpu,
                    ),
                    strict=code and settings.sandbox == "require",
                    threads=settings.threads,
                    max_result=settings.sandbox_result_bytes,
                    on_progress=on_progress,
                    on_data=on_data,
                    stop=self.stop,
                ),
            )
        finally:
            remove_tree(scratch)


class HashedFile:
    """A file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._file = path.open("wb", buffering=0)

    def write(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._file.write(chunk)
        self.size += len(chunk)

    def close(self) -> str:
        """Close the file and return its sha256 in hex."""
        self._file.close()
        return self._hash.hexdigest()
