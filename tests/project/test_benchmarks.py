"""The benchmarks' own arithmetic: the form of a figure, medians, exponents, and a peer that hangs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import engines
from benchmarks.engines import figures_of, measure
from benchmarks.figures import Figure, report
from benchmarks.growth import exponent
from benchmarks.models import CASES
from benchmarks.timing import summary, timed

CASE = CASES[0]


def test_a_report_is_a_list_of_figures_with_value_target_and_verdict(tmp_path: Path) -> None:
    figures = [
        Figure.at_least("speed", 2.0, 3.0, "x"),
        Figure.at_most("time", 2.0, 3.0, "ms"),
        Figure.shown("size", 5.0, "MB"),
    ]
    path = tmp_path / "build/bench.json"
    assert report("all", figures, path, Console(file=io.StringIO())) is False
    written = json.loads(path.read_text())
    assert [row["holds"] for row in written] == [False, True, None]
    assert {"figure", "value", "target", "holds"} <= written[0].keys()
    assert report("some", figures[1:], path, Console(file=io.StringIO())) is True


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_exponent_of_a_power_law_is_its_power(power: float) -> None:
    sizes = [10, 20, 40, 80]
    assert exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)


def test_timing_gives_median_and_99th_percentile() -> None:
    time = summary([0.01] * 99 + [1.0])
    assert (time.median, time.p99, time.calls) == (0.01, 1.0, 100)
    assert timed(lambda: None, rounds=3).calls == 3


def test_a_peer_without_an_answer_counts_as_its_time_limit() -> None:
    facts = {
        "bytes": {"full": 1000, "light": 5},
        "groups": {"count": 3},
        "all": {"seconds": 0.1},
        "all_weightless": {"seconds": 0.05},
        "module_all": {"seconds": 0.2},
        "query": {"seconds": 1e-4, "p99": 2e-4},
        "peer_begins": {},
    }
    figures = {
        f.figure: f for f in figures_of(CASE, facts, "Torch-Pruning did not finish in 120 s")
    }
    ratio = figures[f"{CASE.name}: times faster than Torch-Pruning, all groups"]
    assert ratio.value == pytest.approx(1200)
    assert "lower bound" in ratio.note


def test_a_case_that_fails_is_a_figure_that_does_not_hold() -> None:
    (figure,) = figures_of(CASE, {}, "exit code 1: boom")
    assert figure.holds is False
    assert "boom" in figure.note


def test_a_hanging_child_is_ended_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "OURS_LIMIT", 0.2)
    facts, ended = measure(CASE)
    assert facts == {}
    assert "this project did not finish" in ended
