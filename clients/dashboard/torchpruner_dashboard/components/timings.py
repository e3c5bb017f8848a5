"""Measured times in words: the median, how far it scatters, and whether a difference is more than that."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui

from torchpruner_core.planning.records import LatencyRound, Timing
from torchpruner_dashboard import formatting


def round_notes(rounds: Sequence[LatencyRound], seconds: float) -> None:
    """What was measured for a latency budget: the round that ended at ``seconds``, and how many there
    were."""
    taken = next((each for each in rounds if each.pruned.median == seconds), None)
    if taken is None:
        return
    before, after = _told(taken.original), _told(taken.pruned)
    target = formatting.milliseconds(1000 * taken.target)
    lines = [
        f"Measured in turn: {before} before, {after} after; at most {target} was asked for.",
        f"Half of {formatting.plural(taken.pruned.runs, 'run')} of each lie in the range given. "
        f"{formatting.plural(len(rounds), 'round')} of planning and measuring.",
    ]
    if taken.within_noise:
        lines.append("The result is within noise of the limit: another run may be just above it.")
    if taken.original.low <= taken.pruned.high:
        lines.append("Before and after are within noise of each other.")
    for line in lines:
        ui.label(line).classes("tp-soft tp-small")


def _told(timing: Timing) -> str:
    low, high = (formatting.milliseconds(1000 * each) for each in (timing.low, timing.high))
    return f"{formatting.milliseconds(1000 * timing.median)} ({low} to {high})"
