"""Totals of several models beside each other, as a table and as bars."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nicegui import ui

from torchpruner_client import AsyncRemoteModel
from torchpruner_dashboard import formatting, palette
from torchpruner_dashboard.components.model_rows import display_name
from torchpruner_dashboard.components.timings import machine, spread
from torchpruner_dashboard.latencies import Measured
from torchpruner_dashboard.model_graphs import ModelGraph


@dataclass(frozen=True)
class Side:
    """One model of a comparison, and how long a forward pass takes where that was measured."""

    model: AsyncRemoteModel
    graph: ModelGraph | None
    measured: Measured | None

    @property
    def milliseconds(self) -> float | None:
        return None if self.measured is None else self.measured[1]["median_ms"]

    @property
    def name(self) -> str:
        return display_name(self.model.info)

    @property
    def params(self) -> int:
        return int(self.model.info.counts.get("params", 0))

    @property
    def flops(self) -> int:
        return int(self.model.info.counts.get("flops", 0))


Measure = Callable[[Side], Awaitable[None]]


def comparison_table(sides: Sequence[Side], measure: Measure | None) -> None:
    """A card a model; changes are against the first. ``measure`` is called to time one."""
    first = sides[0]
    with ui.element("section").classes("tp-cards").props('aria-label="Totals"'):
        for side in sides:
            with ui.column().classes("tp-card").style("gap: 6px"):
                ui.link(side.name, f"/models/{side.model.id}").classes("tp-h2 tp-wrap")
                ui.label("compared with" if side is first else "against the first").classes(
                    "tp-soft tp-small"
                )
                _line("Parameters", side.params, first.params, formatting.count)
                _line("FLOPs", side.flops, first.flops, formatting.flops)
                if side.milliseconds is not None:
                    before = first.milliseconds or side.milliseconds
                    _line("Latency", side.milliseconds, before, formatting.milliseconds)
                    _measured_notes(side, first)
                elif measure is not None:
                    _measure_button(side, measure)


def _measured_notes(side: Side, first: Side) -> None:
    """Spread and machine, and a warning where two figures are not of one kind."""
    assert side.measured is not None
    stored, timing = side.measured
    lines = [f"{spread(timing)}, {formatting.age(stored.measured_at)}", machine(asdict(stored))]
    if first.measured is not None and side is not first:
        one, other = first.measured[1], timing
        if not (other["p90_ms"] < one["p10_ms"] or one["p90_ms"] < other["p10_ms"]):
            lines.append("Within noise of the first.")
        if (first.measured[0].device, first.measured[0].runtime) != (stored.device, stored.runtime):
            lines.append("Measured on another machine than the first: not comparable.")
    for line in lines:
        ui.label(line).classes("tp-soft tp-small")


def _measure_button(side: Side, measure: Measure) -> None:
    async def press() -> None:
        button.props(add="loading")
        await measure(side)
        if not button.is_deleted:
            button.props(remove="loading")

    button = ui.button("Measure latency", icon="timer", on_click=press)
    button.props("flat dense no-caps")


def _line(name: str, value: float, first: float, text: Callable[[float], str]) -> None:
    with ui.element("div").classes("tp-row").style("flex-wrap: nowrap; gap: 8px"):
        ui.label(name).classes("tp-soft").style("width: 86px")
        ui.label(text(value)).style("font-weight: 600")
        if value != first:
            ui.label(formatting.change(first, value)).classes("tp-down")


def comparison_chart(sides: Sequence[Side]) -> None:
    """What is left of the first model's parameters and FLOPs, in percent."""
    measures: list[tuple[str, Callable[[Side], float | None]]] = [
        ("Parameters", lambda side: side.params),
        ("FLOPs", lambda side: side.flops),
        ("Latency", lambda side: side.milliseconds),
    ]
    series = [
        _series(number, name, sides, value)
        for number, (name, value) in enumerate(measures)
        if value(sides[0]) and all(value(side) is not None for side in sides)
    ]
    with ui.element("section").classes("tp-card").props('aria-label="Relative to the first"'):
        ui.label(f"Relative to {sides[0].name}").classes("tp-h2")
        height = 70 + 26 * len(sides) * max(1, len(series))
        ui.echart(_options([side.name for side in sides], series)).style(
            f"height: {height}px; width: 100%"
        )


def _series(
    number: int, name: str, sides: Sequence[Side], value: Callable[[Side], float | None]
) -> dict[str, Any]:
    first = float(value(sides[0]) or 1)
    data = [round(100 * float(value(side) or 0) / first, 2) for side in sides]
    return {
        "name": name,
        "type": "bar",
        "data": data,
        "itemStyle": {"color": palette.SERIES[number], "decal": _DECALS[number]},
        "label": {
            "show": True,
            "position": "right",
            "color": palette.CHART_TEXT,
            "formatter": "{c} %",
        },
    }


_DECALS: tuple[dict[str, Any] | None, ...] = (
    None,
    {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [2, 4], "color": "#00000055"},
    {"symbol": "circle", "symbolSize": 0.5, "color": "#ffffff88"},
)
"""Patterns, so that series differ without colour too."""


def _options(names: list[str], series: list[dict[str, Any]]) -> dict[str, Any]:
    axis = {"color": palette.CHART_TEXT}
    return {
        "animation": False,
        "legend": {"textStyle": axis, "top": 0},
        "grid": {"left": 8, "right": 70, "top": 34, "bottom": 8, "containLabel": True},
        "xAxis": {
            "type": "value",
            "axisLabel": {**axis, "formatter": "{value} %", "hideOverlap": True},
            "splitLine": {"lineStyle": {"color": "#8a8f9840"}},
        },
        "yAxis": {
            "type": "category",
            "data": names,
            "inverse": True,
            "axisLabel": {**axis, "width": 150, "overflow": "truncate"},
        },
        "series": series,
    }
