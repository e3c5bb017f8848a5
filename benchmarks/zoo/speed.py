"""``python -m benchmarks.zoo.speed``: every group from the ``nn.Module``, beside Torch-Pruning.

Each model as the module that it is, in a process of its own with one thread; CPU time, the best of
several rounds in turn, since the machine may be busy. Prints a line a model, the median ratio, and which
models are slower; exits with 1 where one is. What Torch-Pruning does not get through is told, and counts as
no ratio.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.zoo.catalogue import every
from benchmarks.zoo.runner import PRELOADED, read, write
from benchmarks.zoo.specimen import Specimen

ROOT = Path(__file__).resolve().parents[2]
MEDIAN_TARGET = 2.0
ROUNDS = 7
BUDGET = 4.0
"""CPU seconds after which no further round starts."""


def main() -> int:
    """Measure what is asked for; return 1 where a model is slower than the peer, or the median low."""
    options = _options()
    wanted = [s for s in every() if not options.only or any(p in s.key for p in options.only)][
        options.first :: options.step
    ]
    folder = options.build / "zoo-speed"
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, "torch_pruning"])
    rows = []
    for specimen in wanted:
        rows.append(_measured(context, specimen, folder / f"{specimen.key}.json", options.seconds))
        print(line(rows[-1]), flush=True)
    write(options.build / "zoo-speed.json", {"rows": rows})
    ratios = [row["peer"] / row["ours"] for row in rows if row.get("peer")]
    failed = [row for row in rows if "ours" not in row]
    slower = [row for row in rows if row.get("peer") and row["peer"] < row["ours"]]
    median = statistics.median(ratios) if ratios else float("nan")
    print(
        f"\n{len(rows)} models, {len(ratios)} of which Torch-Pruning does; median {median:.2f}x, "
        f"least {min(ratios, default=float('nan')):.2f}x; {len(slower)} slower; "
        f"{len(failed)} not built"
    )
    for row in (*slower, *failed):
        print("  " + line(row))
    return 1 if slower or failed or not median >= MEDIAN_TARGET else 0


def line(row: Mapping[str, Any]) -> str:
    """Return a row as one line."""
    name = f"{row['family']}/{row['name']}"
    if "ours" not in row:
        return f"{name}: {row['error']}"
    ours = f"{1e3 * row['ours']:8.1f} ms"
    if not row.get("peer"):
        return f"{name:60s} {ours}   Torch-Pruning: {row.get('error', 'no answer')}"
    peer = f"{1e3 * row['peer']:8.1f} ms"
    return f"{name:60s} {ours}   Torch-Pruning {peer}   {row['peer'] / row['ours']:6.2f}x"


def _measured(context: Any, specimen: Specimen, path: Path, seconds: float) -> dict[str, Any]:
    path.unlink(missing_ok=True)
    child = context.Process(target=_child, args=(specimen.key, str(path)), daemon=True)
    child.start()
    child.join(seconds)
    late = child.is_alive()
    if late:
        child.kill()
        child.join()
    row = read(path) or {"name": specimen.name, "family": specimen.family}
    if late:
        row.setdefault("error", f"not finished after {seconds:.0f} s")
    elif child.exitcode:
        row.setdefault("error", f"exit {child.exitcode}")
    return row


def _child(key: str, path: str) -> None:
    import torch

    from benchmarks import peer
    from benchmarks.side_by_side import groups_of_module

    torch.set_num_threads(1)
    specimen = next(s for s in every() if s.key == key)
    row: dict[str, Any] = {"name": specimen.name, "family": specimen.family}
    model, inputs = specimen.build()
    example: Any = dict(inputs) if isinstance(inputs, Mapping) else inputs

    def ours() -> object:
        return groups_of_module(model, example)

    def theirs() -> object:
        return peer.all_groups(peer.build(model, example))

    try:
        ours()  # the first call imports what is needed
        row["ours"] = _best({"ours": ours})["ours"]
        write(Path(path), row)
    except Exception as error:
        row["error"] = _first_line(error)
        write(Path(path), row)
        return
    try:
        theirs()
        row.update(_best({"ours": ours, "peer": theirs}))
    except Exception as error:
        row["error"] = _first_line(error)
    write(Path(path), row)


def _best(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the least CPU seconds of each call, made in turn with the collector off."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            gc.collect()
            gc.disable()
            try:
                start = time.process_time()
                call()
                spent[name].append(time.process_time() - start)
            finally:
                gc.enable()
        if sum(map(sum, spent.values())) > BUDGET:
            break
    return {name: min(seconds) for name, seconds in spent.items()}


def _first_line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text[:160]}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.speed", description=__doc__)
    parser.add_argument("only", nargs="*", help="parts of the names to run (all)")
    parser.add_argument("--step", type=int, default=1, help="take every so many models")
    parser.add_argument("--first", type=int, default=0, help="the first to take")
    parser.add_argument("--seconds", type=float, default=120, help="time limit a model, both sides")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
