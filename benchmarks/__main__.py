"""``python -m benchmarks``: the engine beside Torch-Pruning, over HTTP, and as models grow.

Prints a table and writes ``build/bench.json``. Exits with 1 where a promised figure does not hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.engines import engine_figures
from benchmarks.figures import Figure, report
from benchmarks.growth import growth_figures
from benchmarks.large import large_figures
from benchmarks.loopback import loopback_figures
from benchmarks.models import CASES

PARTS = ("engines", "large", "growth", "http")


def main(
    part: Annotated[list[str] | None, typer.Option(help=f"Only these of {PARTS}.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only these models.")] = None,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("build/bench.json"),
) -> None:
    """Measure and report."""
    console = Console()
    parts = part or list(PARTS)
    cases = [case.name for case in CASES if not model or case.name in model]
    figures: list[Figure] = []
    steps = len(cases) * ("engines" in parts) + sum(part in parts for part in PARTS[1:])
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=steps)
        if "engines" in parts:
            progress.update(task, description=cases[0])
            for position, (_, found) in enumerate(engine_figures(cases), 1):
                figures += found
                following = cases[position] if position < len(cases) else "large"
                progress.update(task, advance=1, description=following)
        if "large" in parts:
            progress.update(task, description="Llama-70B on meta")
            figures += large_figures()
            progress.advance(task)
        if "growth" in parts:
            progress.update(task, description="growth over layers")
            figures += growth_figures()
            progress.advance(task)
        if "http" in parts:
            progress.update(task, description="over loopback HTTP")
            figures += loopback_figures()
            progress.advance(task)
    title = "One thread; ratios come from one process running both"
    if not report(title, figures, output, console):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
