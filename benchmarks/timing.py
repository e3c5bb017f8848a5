"""Fair timing of short and long calls, one thread."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: the median, the 99th percentile and how many calls they come from."""

    median: float
    p99: float
    calls: int


def timed(call: Callable[[], object], *, rounds: int = 5, budget: float = 10.0) -> Timing:
    """Time ``call`` up to ``rounds`` times; see :func:`timed_in_turn`."""
    return timed_in_turn({"call": call}, rounds=rounds, budget=budget)["call"]


def timed_in_turn(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 5,
    budget: float = 10.0,
    often: Mapping[str, int] | None = None,
) -> dict[str, Timing]:
    """Time several calls round by round, so that a busy moment of the machine meets all of them.

    ``often`` says how many times in a round a call is made, where that is not once. No round starts
    after ``budget`` seconds. The collector is emptied before and kept off during each call, as
    :mod:`timeit` does.
    """
    often = often or {}
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        in_turn = [(name, call) for name, call in calls.items() for _ in range(often.get(name, 1))]
        for name, call in in_turn:
            gc.collect()
            gc.disable()
            try:
                start = time.perf_counter()
                call()
                spent[name].append(time.perf_counter() - start)
            finally:
                gc.enable()
        if sum(map(sum, spent.values())) > budget:
            break
    return {name: summary(seconds) for name, seconds in spent.items()}


def summary(seconds: list[float]) -> Timing:
    """Median and 99th percentile of measured seconds."""
    ranked = sorted(seconds)
    return Timing(
        statistics.median(ranked),
        ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))],
        len(ranked),
    )


def timed_many(
    calls: list[Callable[[], object]], *, repeats: int = 40, budget: float = 5.0
) -> Timing:
    """Time several short calls in turn, ``repeats`` times each, after one call each to warm up."""
    for call in calls:
        call()
    spent: list[float] = []
    for _ in range(repeats):
        for call in calls:
            start = time.perf_counter()
            call()
            spent.append(time.perf_counter() - start)
        if sum(spent) > budget:
            break
    return summary(spent)
