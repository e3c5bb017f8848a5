"""``python -m benchmarks.service``: measure, print a table, write ``build/bench-service.json``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from benchmarks.dashboard import dashboard_figures
from benchmarks.figures import Figure, report
from benchmarks.service.cold import cold_figures
from benchmarks.service.large_configuration import large_configuration_figures
from benchmarks.service.listing import listing_figures
from benchmarks.service.load import load_figures
from benchmarks.service.memory import memory_figures
from benchmarks.service.module_upload import module_upload_figures
from benchmarks.service.transfer import transfer_figures

PARTS: dict[str, Callable[[], Iterator[Figure]]] = {
    "load": load_figures,
    "listing": listing_figures,
    "cold": cold_figures,
    "module": module_upload_figures,
    "transfer": transfer_figures,
    "memory": memory_figures,
    "large": large_configuration_figures,
    "dashboard": dashboard_figures,
}


def main() -> int:
    """Run the chosen parts; the exit code says whether every promised figure holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--output", type=Path, default=Path("build/bench-service.json"))
    chosen = parser.parse_args()
    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part called {', '.join(sorted(unknown))}")
    console = Console()

    def figures() -> Iterator[Figure]:
        for name, part in PARTS.items():
            if not chosen.parts or name in chosen.parts:
                console.print(f"[dim]measuring: {name}[/dim]")
                yield from part()

    holds = report("torchpruner-service under load", figures(), chosen.output, console)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
