"""Each specimen in a process of its own, with limits; what is known already is not done again."""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.zoo.specimen import Specimen
from benchmarks.zoo.wild.wild_file import WildFile

PRELOADED = (
    "torch", "torchvision", "timm", "transformers", "onnx", "onnxruntime", "onnxscript",
    "benchmarks.zoo.catalogue", "benchmarks.zoo.examine",
)  # fmt: skip
"""Imported once in the server that the processes are forked from."""


Subject = Specimen | WildFile


def run(
    specimens: Sequence[Subject],
    folder: Path,
    *,
    seconds: float,
    memory_gb: float,
    redo: frozenset[str],
    jobs: int,
) -> list[dict[str, Any]]:
    """Return the rows of ``specimens``, from ``folder`` where they are there; ``jobs`` at once.

    ``redo`` names states (``wrong``, ``refused``, ``unproven``, ``declined``,
    ``failed``) whose rows are made anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))

    def row_of(number: int, specimen: Subject) -> dict[str, Any]:
        path = folder / f"{specimen.key}.json"
        row = read(path)
        if row is None or not finished(row) or redo & states(row):
            row = _run_one(context, specimen, path, seconds, memory_gb)
            print(f"{number}/{len(specimens)} {describe(row)}", flush=True)
        return row

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(row_of, range(1, len(specimens) + 1), specimens))


def _run_one(
    context: Any, specimen: Subject, path: Path, seconds: float, memory_gb: float
) -> dict[str, Any]:
    path.unlink(missing_ok=True)
    began = time.perf_counter()
    child = context.Process(target=_child, args=(specimen.key, str(path), memory_gb), daemon=True)
    child.start()
    child.join(seconds)
    row = read(path) or {
        "name": specimen.name,
        "family": specimen.family,
        "built": False,
        "cuts": [],
    }
    if child.is_alive():
        child.kill()
        child.join()
        row["error"] = f"not finished after {seconds:.0f} s, while {row.get('stage', 'starting')}"
    elif child.exitcode:
        died = signal.strsignal(-child.exitcode) if child.exitcode < 0 else f"exit {child.exitcode}"
        row["error"] = f"died ({died}) while {row.get('stage', 'starting')}"
    row["total_seconds"] = round(time.perf_counter() - began, 2)
    write(path, row)
    return row


def _child(key: str, path: str, memory_gb: float) -> None:
    from benchmarks.zoo import examine
    from benchmarks.zoo.catalogue import with_files
    from benchmarks.zoo.wild.examine import examine as examine_file

    limit = int(memory_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    save = partial(write, Path(path))
    specimen = next(s for s in with_files() if s.key == key)
    if isinstance(specimen, Specimen):
        examine.examine(specimen, save)
    else:
        examine_file(specimen, save)


def run_peer(
    specimens: Sequence[Subject], folder: Path, *, seconds: float, memory_gb: float, jobs: int
) -> list[dict[str, Any]]:
    """Return the rows with what Torch-Pruning makes of their cuts under ``peer``, tried where missing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))

    def row_of(specimen: Subject) -> dict[str, Any] | None:
        path = folder / f"{specimen.key}.json"
        row = read(path)
        if row is None:
            return None
        if "peer" not in row and row["cuts"]:
            arguments = (specimen.key, str(path), memory_gb, seconds)
            child = context.Process(target=_child_peer, args=arguments, daemon=True)
            child.start()
            child.join(4 * seconds + 60)
            if child.is_alive():
                child.kill()
                child.join()
            row = read(path) or row
            row.setdefault("peer", ["not finished"] * len(row["cuts"]))
            write(path, row)
            print(f"{row['family']} {row['name']}: {row['peer']}", flush=True)
        return row

    with ThreadPoolExecutor(jobs) as pool:
        return [row for row in pool.map(row_of, specimens) if row is not None]


def _child_peer(key: str, path: str, memory_gb: float, seconds: float) -> None:
    from benchmarks.zoo.catalogue import every
    from benchmarks.zoo.peer_check import try_cuts
    from benchmarks.zoo.signals import enliven

    limit = int(memory_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    row = read(Path(path))
    assert row is not None
    model, inputs = next(s for s in every() if s.key == key).build()
    enliven(model, inputs)
    row["peer"] = try_cuts(model, inputs, row["cuts"], seconds)
    write(Path(path), row)


def read(path: Path) -> dict[str, Any] | None:
    """Return a stored row, or ``None``."""
    try:
        row: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return row


def write(path: Path, row: dict[str, Any]) -> None:
    """Store a row; a reader never sees half of it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(row, indent=1))
    part.replace(path)


def finished(row: dict[str, Any]) -> bool:
    """Return whether a row is whole: an interrupted run leaves one that is not."""
    return bool(row.get("error")) or row.get("stage") == "done"


def states(row: dict[str, Any]) -> frozenset[str]:
    """Return the states of a row's cuts, and ``failed`` where an error ended it."""
    found = {cut.get("status", "") for cut in row["cuts"]}
    found |= {"declined" for cut in row["cuts"] if cut.get("module") == "refused"}
    return frozenset(found | ({"failed"} if row.get("error") else set()))


def describe(row: dict[str, Any]) -> str:
    """Return one line, and one more a cut that went badly."""
    counts: dict[str, int] = {}
    for cut in row["cuts"]:
        counts[cut["status"]] = counts.get(cut["status"], 0) + 1
    lines = [
        f"{row['family']} {row['name']}: {'built' if row['built'] else 'NOT BUILT'}, "
        + ", ".join(f"{count} {status}" for status, count in counts.items())
        + f" ({row.get('total_seconds', 0):.0f} s) {row.get('error', '')}"
    ]
    for cut in row["cuts"]:
        if cut.get("module") == "refused":
            lines.append(f"    ONNX only: {cut['node']}: {cut['module_reason']}")
        if cut["status"] != "equal":
            lines.append(
                f"    {cut['status']}: {cut['kind']} {cut['node']} axis {cut['dim']} {cut['index']}"
                f" {cut['granularity']}: {cut.get('reason', '')}"
            )
    return "\n".join(lines)
