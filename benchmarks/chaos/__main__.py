"""``python -m benchmarks.chaos``: print the figures, write ``build/chaos.json``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.chaos.client import ChaosClient
from benchmarks.chaos.deployment import Deployment
from benchmarks.chaos.faults import Collector, Faults
from benchmarks.chaos.files import make_file
from benchmarks.chaos.ledger import Ledger
from benchmarks.chaos.verdict import judge
from benchmarks.figures import Figure, report

TENANTS = 6
SHARED = 10


def chaos_figures(
    seconds: float, clients: int, seed: int, console: Console, log: Path
) -> Iterator[Figure]:
    """Run the storm and yield what came of it."""
    ledger = Ledger()
    shared = [make_file(number) for number in range(SHARED)]
    with Deployment() as deployment:
        keys = [deployment.key(f"tenant-{number}") for number in range(TENANTS)]
        people = [
            ChaosClient(n, keys[n % TENANTS], deployment.urls, shared, ledger)
            for n in range(clients)
        ]
        faults, collector = Faults(deployment, seed), Collector(deployment)
        for thread in (*people, faults, collector):
            thread.start()
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(30.0, left))
            console.print(
                f"[dim]{left:.0f} s left: {ledger.counts['requests']} requests, "
                f"{len(ledger.kept)} models kept, {faults.done.total()} faults, "
                f"{len(ledger.wrong)} wrong[/dim]"
            )
        faults.finish()
        for person in people:
            person.finish()
        for person in people:
            person.join(120)
        verdict = judge(deployment, ledger)
        collector.finish()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(deployment.log.read_bytes())
    for words in verdict.wrong[:10]:
        console.print(words, style="red", markup=False)
    lost = verdict.acknowledged - verdict.found
    yield Figure.shown("acknowledged models", verdict.acknowledged, "")
    yield Figure.at_least("of these found, and right", verdict.found, verdict.acknowledged, "")
    yield Figure.at_most("lost", lost, 0, "")
    yield Figure.at_most("stuck jobs", verdict.stuck, 0, "")
    yield Figure.at_most("wrong answers", len(verdict.wrong), 0, "")
    for name, number in sorted(ledger.counts.items()):
        yield Figure.shown(name, number, "")
    for name, number in sorted((faults.done + collector.done).items()):
        yield Figure.shown(name, number, "")


def main(
    seconds: Annotated[float, typer.Option(help="How long the storm lasts")] = 480.0,
    clients: int = 30,
    seed: int = 7,
    output: Path = Path("build/chaos.json"),
) -> None:
    """Exits with 1 where anything was lost, stuck or wrong."""
    console = Console()
    figures = chaos_figures(seconds, clients, seed, console, output.with_suffix(".log"))
    if not report(
        f"{clients} clients through a storm of {seconds:.0f} s", figures, output, console
    ):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
