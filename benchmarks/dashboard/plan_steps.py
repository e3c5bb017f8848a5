"""Steps of the plan page's slider: from the key press to the widths that it leaves."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import torchpruner_core
from benchmarks.figures import Figure
from benchmarks.live_service import LiveService
from benchmarks.models import CASES

NETWORKS = ("resnet50", "vit_b_16")
STEP_MS = 300.0
STEPS = 31


def plan_step_figures(service: LiveService, page: Any) -> Iterator[Figure]:
    """Yield a figure for each network; the first answer, which the steps move over, is told beside."""
    for name in NETWORKS:
        module, inputs = next(case for case in CASES if case.name == name).build()
        data = torchpruner_core.export_onnx(module, inputs, weights=False)
        yield _steps(page, name, service.upload(data, name=name)["id"])


def _steps(page: Any, name: str, model: str) -> Figure:
    start = time.perf_counter()
    page.goto(f"/models/{model}/plan?flops=50")
    _wait_for(page, 50)
    first = time.perf_counter() - start
    page.locator(".tp-slider [tabindex='0']").first.focus()
    times, percent = [], 50
    for number in range(STEPS):
        down = number % 16 < 8
        percent += -5 if down else 5
        start = time.perf_counter()
        page.keyboard.press("ArrowLeft" if down else "ArrowRight")
        _wait_for(page, percent)
        times.append(1e3 * (time.perf_counter() - start))
    return Figure.at_most(
        f"dashboard: a step of the plan page, {name}, median",
        statistics.median(times),
        STEP_MS,
        "ms",
        f"slowest of {STEPS}: {max(times):.0f} ms; the first answer {first:.2f} s",
    )


def _wait_for(page: Any, percent: int) -> None:
    """Until costs, picture and the table of widths are those of ``percent``."""
    page.wait_for_function(_SHOWN, arg=percent, timeout=120_000)


_SHOWN = """percent => {
  const title = document.querySelector('[aria-label="Costs"] .tp-h2')?.textContent;
  const large = [...document.querySelectorAll('.tp-point')].find(
    (point) => Number(point.querySelectorAll('circle')[1].getAttribute('r')) > 5);
  const rows = document.querySelectorAll('.tp-table tbody tr').length;
  return title === `${percent} % of the FLOPs` && Number(large?.dataset.percent) === percent && rows > 0;
}"""
