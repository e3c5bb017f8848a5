"""``python -m benchmarks.service``: the service under load, with large files, and cold.

Prints a table and writes ``build/bench-service.json``. Exits with 1 where a promised figure does
not hold. All traffic is on loopback and bounded in time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.cold import cold_figures
from benchmarks.figures import Figure, report
from benchmarks.live_service import live_service
from benchmarks.load import load_figures
from benchmarks.transfers import SIZE, transfer_figures

PARTS = ("load", "cold", "transfers")


def main(
    part: Annotated[list[str] | None, typer.Option(help=f"Only these of {PARTS}.")] = None,
    size: Annotated[int, typer.Option(help="Bytes of the large model.")] = SIZE,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = Path(
        "build/bench-service.json"
    ),
) -> None:
    """Measure and report."""
    console = Console()
    figures: list[Figure] = []
    parts = part or list(PARTS)
    with tempfile.TemporaryDirectory(prefix="tp-bench-") as name, console.status("") as status:
        folder = Path(name)
        # A service for each part, so that one part's work does not warm or fill another's process.
        if "load" in parts:
            status.update("under load")
            with live_service() as service:
                figures += load_figures(service)
        if "cold" in parts:
            status.update("cold")
            with live_service() as service:
                figures += cold_figures(service, folder)
        if "transfers" in parts:
            status.update(f"{size / 1e9:.1f} GB up and down")
            with live_service() as service:
                figures += transfer_figures(service, folder, size)
    if not report("One API process, loopback", figures, output, console):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
