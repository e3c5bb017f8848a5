"""What a sandboxed child does: give up its rights, run one task, report."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchpruner_core.errors import TorchPrunerError
from torchpruner_service.problems import Problem, jsonable
from torchpruner_service.sandbox.confinement import Limits, confine
from torchpruner_service.sandbox.frames import FrameWriter

MAX_DETAIL = 2000
UNCONFINED = "sandbox-unavailable"
OUT_OF_FILES = (errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT)
OUT_OF_MEMORY = ("not enough memory", "allocate memory", "bad_alloc", "Failed to allocate")


def run_child(request: dict[str, Any], pipe: int) -> None:
    """Run ``request["task"]`` confined, and write frames to ``pipe``. Never raises."""
    out = FrameWriter(pipe)
    try:
        scratch = Path(request["scratch"])
        limits = Limits(**request["limits"])
        tempfile.tempdir = str(scratch)
        os.environ.update(TMPDIR=str(scratch), HOME=str(scratch))
        inputs = [Path(path) for path in request["inputs"]]
        try:
            confine(limits, inputs, scratch, strict=request["strict"], preserve=[pipe])
        except OSError as error:
            out.error({"type": UNCONFINED, "detail": str(error)})
            return
        _limit_threads(int(request["threads"]))
        # Imported late so that a task's own module may import torch.
        from torchpruner_service.sandbox.tasks import TASKS

        out.result(TASKS[request["task"]](request["args"], out))
    except BaseException as error:
        with contextlib.suppress(OSError):
            out.error(describe(error))
    finally:
        os._exit(0)


def _limit_threads(count: int) -> None:
    if count:
        import torch

        torch.set_num_threads(count)


def describe(error: BaseException) -> dict[str, Any]:
    """An error of a task as problem members."""
    text = str(error) or type(error).__name__
    cause = _last_line(error.__cause__) if error.__cause__ is not None else ""
    if len(text) > MAX_DETAIL:
        text = text[:MAX_DETAIL] + " ..."
    if isinstance(error, Problem):
        return error.to_dict()
    # Exporters wrap what they meet: a limit that was hit is somewhere behind.
    behind = list(_chain(error))
    if any(_lacks_memory(each) for each in behind) or _memory_is_used_up():
        return {
            "type": "memory-limit",
            "title": "The model needs more memory than a job may use",
            "status": 422,
            "detail": f"{text} Use a smaller input, or raise TORCHPRUNER_SANDBOX_MEMORY.",
        }
    if any(isinstance(each, OSError) and each.errno in OUT_OF_FILES for each in behind):
        return {
            "type": "disk-limit",
            "title": "The model needs more temporary files than a job may use",
            "status": 422,
            "detail": f"{text}; raise TORCHPRUNER_SANDBOX_FILES or TORCHPRUNER_SANDBOX_FILE_BYTES.",
        }
    if isinstance(error, TorchPrunerError):
        problem = {**jsonable(error.to_problem()), "status": 422}
        return {**problem, "cause": cause} if cause else problem
    if isinstance(error, (ImportError, NameError)):
        # A fault of this installation, not of the model: it may be tried again.
        return {
            "type": "internal-error",
            "title": "The worker's engine is damaged",
            "status": 500,
            "detail": f"{type(error).__name__}: {text}; the model is not at fault",
            "retryable": True,
        }
    if isinstance(error, RecursionError):
        text = "the model is nested too deeply"
    return {
        "type": "invalid-model",
        "title": "The model could not be read",
        "status": 422,
        "detail": f"{type(error).__name__}: {text}",
    }


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def _lacks_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return any(words in str(error) for words in OUT_OF_MEMORY)


def _memory_is_used_up() -> bool:
    """Whether not even one MiB is left: then an error of any name may be for want of memory."""
    try:
        mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return True
    return False


def _last_line(error: BaseException) -> str:
    """The end of a message: TorchScript's errors have a traceback first and the reason last."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:500] if lines else ""
