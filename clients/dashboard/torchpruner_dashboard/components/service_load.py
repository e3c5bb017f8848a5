"""Rates of a service while one looks, and how quickly its routes answer."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from torchpruner_dashboard import formatting, palette
from torchpruner_dashboard.components.data_table import Column, DataTable
from torchpruner_dashboard.service_history import ServiceHistory

ROUTES = (
    Column("route", "Route", "name"),
    Column("count", "Requests", "number"),
    Column("rate", "A second", "number"),
    Column("median", "Median", "number"),
    Column("p95", "95 %", "number"),
)


class ServiceLoad:
    """Built once; every reading changes what is in it."""

    def __init__(self) -> None:
        with ui.element("section").classes("tp-card").props('aria-label="Load"'):
            ui.label("Requests a second and jobs waiting, while this page is open").classes("tp-h2")
            self._chart = ui.echart(_chart_options()).style("height: 200px; width: 100%")
        with ui.element("section").classes("tp-stack").props('aria-label="Routes"'):
            ui.label("Time to answer, since the API process started").classes("tp-h2")
            self._routes = DataTable(
                ROUTES, [], page_size=10, empty="Nobody has asked anything yet"
            )

    def show(self, history: ServiceHistory) -> None:
        self._routes.set_rows(_route_rows(history))
        times = [round(1000 * moment.at) for moment in history.moments]
        # Never less than a minute, or a first reading would be drawn on an axis of days.
        self._chart.options["xAxis"]["min"] = min(times[0], times[-1] - 60_000)
        series = self._chart.options["series"]
        series[0]["data"] = [
            [at, round(m.rate, 2)] for at, m in zip(times, history.moments, strict=True)
        ]
        series[1]["data"] = [[at, m.waiting] for at, m in zip(times, history.moments, strict=True)]
        self._chart.update()


def _route_rows(history: ServiceHistory) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{figures.method} {figures.route}",
            "route": f"{figures.method} {figures.route}",
            "count": figures.count,
            "count_text": formatting.count(figures.count),
            "rate": round(figures.rate, 2),
            "median": figures.median,
            "median_text": formatting.duration(figures.median),
            "p95": figures.p95,
            "p95_text": formatting.duration(figures.p95),
        }
        for figures in history.routes()
    ]


def _chart_options() -> dict[str, Any]:
    text = {"color": palette.CHART_TEXT}
    grid = {"lineStyle": {"color": "#8a8f9840"}}
    line = {"type": "line", "showSymbol": False, "data": []}
    return {
        "animation": False,
        "legend": {"textStyle": text, "top": 0},
        "grid": {"left": 8, "right": 16, "top": 30, "bottom": 4, "containLabel": True},
        "xAxis": {"type": "time", "axisLabel": {**text, "hideOverlap": True}},
        "yAxis": {"type": "value", "min": 0, "axisLabel": text, "splitLine": grid},
        "series": [
            {**line, "name": "Requests a second", "color": palette.BLUE},
            {
                **line,
                "name": "Jobs waiting",
                "step": "end",
                "color": palette.ORANGE,
                "lineStyle": {"type": "dashed"},
            },
        ],
    }
