"""``python -m benchmarks.dashboard``: prints the table, writes ``build/bench-dashboard.json``."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from benchmarks.dashboard.pages import dashboard_figures
from benchmarks.figures import report


def main(output: Path = Path("build/bench-dashboard.json")) -> None:
    """Measure and report; exits with 1 where a promised figure does not hold."""
    if not report("Dashboard in a browser, loopback", dashboard_figures(), output, Console()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
