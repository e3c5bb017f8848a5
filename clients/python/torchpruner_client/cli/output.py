"""What commands print: tables for people, JSON for programs, one line for what went wrong."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from torchpruner_client.errors import (
    DownloadDamaged,
    NoWorkerError,
    ServiceError,
    ServiceUnreachable,
)
from torchpruner_client.synchronous import Client
from torchpruner_core.cut_result import CutResult
from torchpruner_core.cut_warnings import CLASSES
from torchpruner_core.errors import TorchPrunerError

speaks_json: ContextVar[bool] = ContextVar("speaks_json", default=False)
"""Whether the command that runs prints JSON."""

HINTS = {
    "inputs-required": "--input x:1x3x224x224:float32",
    "weights-required": "torchpruner upload FILE --weights",
    "unauthorized": "--api-key KEY, or TORCHPRUNER_API_KEY",
}
"""The next step at a shell, where the service's answer has it for HTTP."""

# Names come from models and users, and may hold brackets: they are text, never markup.
out = Console(markup=False)
err = Console(stderr=True, markup=False)


def _tell(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Say what Python warns of on standard error: a line for people, or for programs."""
    if speaks_json.get():
        typer.echo(json.dumps({"warning": category.__name__, "detail": str(message)}), err=True)
    else:
        err.print(f"warning: {message}", style="yellow", soft_wrap=True)


@contextmanager
def told_warnings() -> Iterator[None]:
    """Have warnings of this package told as :func:`fail` tells errors, each once."""
    with warnings.catch_warnings():
        for category in CLASSES.values():
            warnings.filterwarnings("default", category=category)
        warnings.showwarning = _tell
        yield


@contextmanager
def connected(url: str | None, api_key: str | None) -> Iterator[Client]:
    try:
        with told_warnings(), Client(url, api_key=api_key) as client:
            yield client
    except (ServiceUnreachable, NoWorkerError, DownloadDamaged) as error:
        fail(str(error))
    except ServiceError as error:
        hint = HINTS.get(error.code)
        told = f"{error.detail} ({error.code})"
        if hint is None:
            fail(told, error.problem)
        fail(f"{told}; here: {hint}", {**error.problem, "hint": hint})
    except BrokenPipeError:
        raise  # the reader of the output is gone: typer ends quietly
    except TorchPrunerError as error:
        fail(str(error), error.to_problem())
    except (OSError, TimeoutError, ValueError, ImportError) as error:
        fail(str(error))


def print_result(result: CutResult) -> None:
    table = Table("tensor", "axis", "slices removed")
    for name, axes in result.terminal.items():
        for axis, indices in enumerate(axes):
            if indices is not None:
                table.add_row(name, str(axis), short(indices.tolist()))
    out.print(table)
    for name, change in result.operator.items():
        out.print(f"{name}: subtract {change}")
    for choice in result.choices:
        out.print(f"choice at {choice.operator}: {choice.taken}, not {choice.rejected}")
    out.print(
        f"parameters {difference(result.params_before, result.params_after)}, "
        f"FLOPs {difference(result.flops_before, result.flops_after)}",
        soft_wrap=True,
    )


def difference(before: float, after: float) -> str:
    """Write what something costs before and after, and the difference in percent."""
    percent = f" ({100 * (after / before - 1):+.2f} %)" if before else ""
    return f"{before:,} -> {after:,}{percent}"


def size(count: float) -> str:
    """Write bytes with a unit: ``103 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def date(seconds: float) -> str:
    """Write a Unix time as a local date and time, to the minute."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def short(indices: list[int]) -> str:
    text = ", ".join(map(str, indices[:12]))
    return text if len(indices) <= 12 else f"{text} ... ({len(indices)} in all)"


def print_json(value: Any, write: Callable[[str], None] = typer.echo) -> None:
    write(json.dumps(value, indent=2))


def fail(message: str, problem: dict[str, Any] | None = None, code: int = 1) -> NoReturn:
    """End the command with an exit code, a line for people, or RFC 9457 members for programs."""
    if speaks_json.get():
        told = {"type": "error", "detail": message, **(problem or {})}
        typer.echo(json.dumps(told, default=str), err=True)
    else:
        err.print(message, style="red", soft_wrap=True)
    raise typer.Exit(code)
