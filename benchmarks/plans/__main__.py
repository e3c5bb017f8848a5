"""``python -m benchmarks.plans``: what plans promise, measured.

Prints a table and writes ``build/bench-plan.json``. Exits with 1 where a promised figure does not hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.figures import Figure, report

KEPT = Path("build/bench-plan")
"""What was measured, model by model: a run that was stopped goes on; delete it to measure anew."""

PARTS = ("speed", "exactness", "latency", "accuracy", "trained")


def main(
    part: Annotated[list[str] | None, typer.Option(help=f"Only these of {PARTS}.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only models with this in the name.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = Path(
        "build/bench-plan.json"
    ),
) -> None:
    """Measure and report."""
    console = Console()
    parts = part or list(PARTS)
    figures: list[Figure] = []

    def wanted(name: str) -> bool:
        return not only or any(text in name for text in only)

    # Each part loads what it needs: the first two know no training, the last no catalogue.
    if "speed" in parts:
        from benchmarks.plans.speed import speed_figures

        figures += speed_figures()
    if "exactness" in parts:
        from benchmarks.plans import exactness

        chosen = [s for s in exactness.specimens() if wanted(s.name)]
        rows = exactness.measure(chosen, KEPT / "exactness", console.print)
        figures += exactness.figures(rows)
    if "latency" in parts:
        from benchmarks.plans.latency import MODELS, latency_figures

        figures += latency_figures(console.print, tuple(filter(wanted, MODELS)))
    if "accuracy" in parts:
        from benchmarks.plans.accuracy import FOLDER, SEEDS, accuracy_figures
        from benchmarks.plans.tasks import TASKS

        tasks = [task for task in TASKS if wanted(task.name)]
        figures += accuracy_figures(tasks, SEEDS, FOLDER, console.print)
    if "trained" in parts:
        from benchmarks.plans.trained import NETWORKS, trained_figures

        figures += trained_figures([n for n in NETWORKS if wanted(n.name)])
    if not report("Plans", figures, output, console):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
