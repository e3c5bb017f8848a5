"""Named values side by side."""

from __future__ import annotations

from collections.abc import Iterable

from nicegui import ui

Fact = tuple[str, str, str]
"""Name, value, and a note beneath (may be empty)."""


def facts(items: Iterable[Fact]) -> ui.element:
    """A grid of facts."""
    with ui.element("dl").classes("tp-facts").style("margin: 0") as grid:
        for name, value, note in items:
            with ui.element("div"):
                with ui.element("dt").classes("tp-fact-name"):
                    ui.label(name)
                with ui.element("dd").classes("tp-fact-value").style("margin: 0"):
                    ui.label(value)
                if note:
                    ui.label(note).classes("tp-fact-note")
    return grid
