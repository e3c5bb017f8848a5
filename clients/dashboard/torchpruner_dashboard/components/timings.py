"""Measured times in words: the median, how far it scatters, whether a difference is more than that, and
on what machine that was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from torchpruner_client import StoredLatency
from torchpruner_core.planning.records import LatencyRound, Timing
from torchpruner_dashboard import formatting


def spread(timing: Mapping[str, float]) -> str:
    """A median and the range in which four of five runs lie, in milliseconds.

    >>> spread({"median_ms": 4.1, "p10_ms": 4.0, "p90_ms": 4.4})
    '4.10 ms (4 ms to 4.40 ms)'
    """
    low, high = (formatting.milliseconds(timing.get(key)) for key in ("p10_ms", "p90_ms"))
    return f"{formatting.milliseconds(timing['median_ms'])} ({low} to {high})"


def within_noise(latency: StoredLatency) -> bool:
    """Whether the runs of the original and of the pruned model overlap: neither is surely quicker."""
    return not (
        latency.pruned["p90_ms"] < latency.original["p10_ms"]
        or latency.original["p90_ms"] < latency.pruned["p10_ms"]
    )


def machine(facts: Mapping[str, Any]) -> str:
    """Where something was measured, and how busy it was there.

    >>> machine({"device": "AMD EPYC", "runtime": "onnxruntime 1.30", "threads": 1,
    ...          "load": {"before": 0.4, "after": 3.1, "cpus": 2}})
    'AMD EPYC, onnxruntime 1.30, 1 thread; load 3.1 on 2 CPUs: a busy machine, measure again'
    """
    parts = [str(facts["device"]), str(facts["runtime"])]
    if facts.get("threads"):
        parts.append(formatting.plural(int(facts["threads"]), "thread"))
    load = facts["load"]
    most = max(load["before"], load["after"])
    busy = ": a busy machine, measure again" if most > load["cpus"] else ""
    return f"{', '.join(parts)}; load {most:.1f} on {formatting.plural(load['cpus'], 'CPU')}{busy}"


def latency_notes(latency: StoredLatency, before_is: str = "") -> list[str]:
    """What stands beneath a latency: spread, machine, age, and what to make of it."""
    lines = [f"Before {spread(latency.original)}, after {spread(latency.pruned)}."]
    if within_noise(latency):
        lines.append("Before and after are within noise of each other.")
    elif latency.speedup is not None:
        lines.append(f"{latency.speedup:.2f}× as fast.")
    facts = {
        "device": latency.device,
        "runtime": latency.runtime,
        "threads": latency.threads,
        "load": latency.load,
    }
    lines.append(
        f"{machine(facts)}. {formatting.plural(latency.runs, 'run')} in turn, "
        f"{formatting.age(latency.measured_at)}."
    )
    return [*lines, *filter(None, (before_is, latency.degraded))]


def round_notes(
    rounds: Sequence[LatencyRound], seconds: float, measured_on: Mapping[str, Any] | None
) -> None:
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
    if measured_on:
        lines.append(f"{machine(measured_on)}.")
    for line in lines:
        ui.label(line).classes("tp-soft tp-small")


def _told(timing: Timing) -> str:
    low, high = (formatting.milliseconds(1000 * each) for each in (timing.low, timing.high))
    return f"{formatting.milliseconds(1000 * timing.median)} ({low} to {high})"
