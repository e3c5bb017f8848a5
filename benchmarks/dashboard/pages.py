"""Pages of a large tenant and of a large network, and the steps of the cut and plan pages' sliders.

A page is *usable* when its first row is there and its search answers; its files are in the
browser's cache, as they are for anybody who has been there before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.dashboard.live_dashboard import find_browser, live_dashboard, live_page
from benchmarks.dashboard.networks import deep_network
from benchmarks.dashboard.plan_steps import plan_step_figures
from benchmarks.figures import Figure
from benchmarks.live_service import LiveService, live_service

MODELS = 1000
BLOCKS = 250
USABLE_SECONDS = 1.0
STEP_MS = 200.0
VISITS = 5
STEPS = 31


def dashboard_figures() -> Iterator[Figure]:
    """Measure with a service of its own; without a browser the one figure says how to get one."""
    program = find_browser()
    if program is None:
        note = "not measured: no browser; apt-get install chromium"
        yield Figure.shown("dashboard: not measured", 0.0, "", note)
        return
    with live_service() as service:
        yield from _figures(service, program)


def _figures(service: LiveService, program: str) -> Iterator[Figure]:
    deep = service.upload(deep_network(BLOCKS), name="deep")["id"]
    wide = service.upload(deep_network(2, MODELS + 40), name="wide")["id"]
    _derive_many(service, wide)
    with live_dashboard(service.url) as url, live_page(program, url) as page:
        yield _models_page(page)
        yield _model_page(page, deep)
        yield _slider(page, deep)
        yield from plan_step_figures(service, page)


def _derive_many(service: LiveService, model: str) -> None:
    """A thousand models of one tenant: each another cut of ``model``, ready at once."""
    for number in range(MODELS - 2):
        body = {"node": "self.layers.0.conv.weight", "dim": 0, "index": [number]}
        cut = service.client.post(f"/v1/models/{model}/cut-analysis", json=body)
        cut.raise_for_status()
        asked = {"result": cut.json(), "name": f"run-{number:04d}"}
        service.client.post(f"/v1/models/{model}/derive", json=asked).raise_for_status()


def _models_page(page: Any) -> Figure:
    # The oldest ones: they are not among the rows that come first.
    times = [_usable(page, "/", "Search models", "run-000") for _ in range(VISITS + 1)]
    warm = times[1:]
    return Figure.at_most(
        f"dashboard: models page with {MODELS} models usable",
        statistics.median(warm),
        USABLE_SECONDS,
        "s",
        f"slowest {max(warm):.2f} s; first visit, nothing cached, {times[0]:.2f} s",
    )


def _model_page(page: Any, model: str) -> Figure:
    address = f"/models/{model}?tab=modules"
    times = [_tree_usable(page, address) for _ in range(VISITS + 1)]
    warm = times[1:]
    return Figure.at_most(
        f"dashboard: model page of {4 * BLOCKS} modules usable",
        statistics.median(warm),
        USABLE_SECONDS,
        "s",
        f"slowest {max(warm):.2f} s; first visit, graph not at hand, {times[0]:.2f} s",
    )


def _slider(page: Any, model: str) -> Figure:
    node = f"self.layers.{BLOCKS // 2}.conv.weight"
    page.goto(f"/models/{model}/cut?node={node}&dim=0&index=0")
    page.wait_for_selector(".tp-picture")
    page.wait_for_timeout(500)
    page.locator(".tp-slider [tabindex='0']").focus()
    times = []
    for number in range(STEPS):
        forth = number % 2 == 0
        start = time.perf_counter()
        page.keyboard.press("ArrowRight" if forth else "ArrowLeft")
        page.wait_for_function(_SHOWN, arg=f"−{2 if forth else 1}/8")
        times.append(1e3 * (time.perf_counter() - start))
    return Figure.at_most(
        "dashboard: a slider step shows its result, median",
        statistics.median(times),
        STEP_MS,
        "ms",
        f"slowest of {STEPS}: {max(times):.0f} ms",
    )


_SHOWN = "text => document.querySelector('.tp-picture')?.textContent.includes(text)"


def _usable(page: Any, address: str, search: str, text: str) -> float:
    page.goto("about:blank")
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_selector(".tp-table tbody tr")
    field = page.get_by_label(search)
    field.fill(text)
    page.wait_for_function(_FOUND, arg=text)
    return time.perf_counter() - start


_FOUND = """text => {
  const rows = [...document.querySelectorAll('.tp-table tbody tr')];
  return rows.length > 0 && rows.every(row => row.textContent.includes(text));
}"""


def _tree_usable(page: Any, address: str) -> float:
    page.goto("about:blank")
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_selector(".tp-table tbody tr")
    page.get_by_label("Search modules").fill("layers.200.conv")
    page.wait_for_selector('.tp-table button[aria-label="self.layers.200"]')
    return time.perf_counter() - start
