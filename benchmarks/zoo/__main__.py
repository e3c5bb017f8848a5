"""``python -m benchmarks.zoo``: examine every architecture, write ``build/zoo.json`` and the table."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from benchmarks.zoo import report, runner
from benchmarks.zoo.catalogue import with_files
from benchmarks.zoo.wild import report as wild_report

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run what is missing; return 1 where a cut is wrong or training fails after it."""
    options = _options()
    wanted = [
        s for s in with_files() if not options.only or any(part in s.key for part in options.only)
    ]
    if options.list:
        print("\n".join(f"{specimen.family}\t{specimen.name}" for specimen in wanted))
        return 0
    redo = frozenset(options.redo)
    if options.fresh:
        for specimen in wanted:
            (options.build / "zoo" / f"{specimen.key}.json").unlink(missing_ok=True)
    folder = options.build / "zoo"
    limits: dict[str, Any] = {
        "seconds": options.seconds, "memory_gb": options.memory, "jobs": options.jobs
    }  # fmt: skip
    if options.known:
        found = [runner.read(folder / f"{specimen.key}.json") for specimen in wanted]
        rows: list[dict[str, Any]] = [row for row in found if row and runner.finished(row)]
    else:
        rows = runner.run(wanted, folder, redo=redo, **limits)
    if options.peer and not options.known:
        rows = runner.run_peer(wanted, folder, **(limits | {"seconds": 10}))
    summary = report.summary(rows)
    print(json.dumps(summary, indent=1))
    if not options.only or options.report:
        report.write_json(options.build / "zoo.json", rows)
        of_files = [row for row in rows if row["family"] == "wild"]
        modules = [row for row in rows if row["family"] != "wild"]
        count = sum(specimen.family != "wild" for specimen in wanted)
        if modules:
            report.write_markdown(options.docs / "coverage.md", modules, count)
        if of_files:
            wild_report.write_markdown(options.docs / "onnx-files.md", of_files)
    return 1 if summary["wrong"] or summary["later_crashes"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("only", nargs="*", help="parts of the names to run (all); writes no report")
    parser.add_argument("--known", action="store_true", help="run nothing: report what is known")
    parser.add_argument("--report", action="store_true", help="write the report all the same")
    parser.add_argument("--list", action="store_true", help="list the specimens and stop")
    parser.add_argument("--fresh", action="store_true", help="forget what is known already")
    parser.add_argument(
        "--redo", nargs="*", default=[], help="run again rows with these states", metavar="STATE",
        choices=["wrong", "refused", "unproven", "declined", "failed"],
    )  # fmt: skip
    parser.add_argument(
        "--peer", action=argparse.BooleanOptionalAction, default=True, help="try Torch-Pruning too"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="models at once")
    parser.add_argument("--seconds", type=float, default=600, help="time limit a model")
    parser.add_argument("--memory", type=float, default=16, help="memory limit a model, in GB")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
