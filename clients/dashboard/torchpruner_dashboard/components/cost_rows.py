"""Costs before and after, as bars and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nicegui import ui

from torchpruner_dashboard import formatting
from torchpruner_dashboard.plans.plan_choice import LIMITS


def _seconds(value: float) -> str:
    return formatting.milliseconds(1000 * value)


TEXTS = {
    "flops": formatting.flops,
    "params": formatting.count,
    "latency": _seconds,
    "bytes": formatting.size,
    "memory": formatting.size,
}


def cost_rows(costs: Mapping[str, Mapping[str, Any]]) -> None:
    """A row for each cost that people know."""
    with ui.element("div").classes("tp-compare"):
        for name, text in TEXTS.items():
            if name in costs:
                _cost_row(LIMITS[name], costs[name], text)


def _cost_row(name: str, cost: Mapping[str, Any], text: Any) -> None:
    ui.label(name).classes("tp-soft")
    with ui.element("span").classes("tp-track").style("margin: 0; height: 8px"):
        share = formatting.share(cost["after"], cost["before"])
        ui.element("i").style(f"height: 8px; width: {share:.2f}%")
    ui.label(f"{text(cost['before'])} → {text(cost['after'])}").style("text-align: right")
    ui.label(formatting.change(cost["before"], cost["after"])).classes("tp-down").style(
        "text-align: right"
    )
