"""Parameters, FLOPs and, when measured, latency before and after."""

from __future__ import annotations

from nicegui import ui

from torchpruner_client import CutResult, StoredLatency
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.timings import latency_notes


class Savings:
    """Three rows: name, bar of what is left, numbers."""

    def __init__(self) -> None:
        with ui.element("div").classes("tp-compare"):
            self._params = _Row("Parameters")
            self._flops = _Row("FLOPs")
            self._latency = _Row("Latency")
        self._notes = ui.column().style("width: 100%; gap: 2px")
        self.show_latency(None)

    def show(self, result: CutResult) -> None:
        """Show what ``result`` saves."""
        before, after = result.params_before, result.params_after
        self._params.show(before, after, formatting.count)
        self._flops.show(result.flops_before, result.flops_after, formatting.flops)

    def show_latency(self, latency: StoredLatency | None, before_is: str = "") -> None:
        """Show a measurement, or say that there is none for this cut. ``before_is`` says what the
        first number is of, where that is not plain."""
        self._notes.clear()
        if latency is None:
            self._latency.say("not measured")
            return
        before, after = latency.original["median_ms"], latency.pruned["median_ms"]
        self._latency.show(before, after, formatting.milliseconds)
        with self._notes:
            for line in latency_notes(latency, before_is):
                ui.label(line).classes("tp-soft tp-small")

    def say_latency(self, text: str) -> None:
        self._latency.say(text)


class _Row:
    def __init__(self, name: str) -> None:
        ui.label(name).classes("tp-soft")
        with ui.element("span").classes("tp-track").style("margin: 0; height: 8px"):
            self._bar = ui.element("i").style("height: 8px; width: 100%")
        self._text = ui.label().style("text-align: right")
        self._change = ui.label().classes("tp-down").style("text-align: right")

    def show(self, before: float, after: float, text: object) -> None:
        assert callable(text)
        self._bar.style(f"width: {formatting.share(after, before):.2f}%")
        self._text.text = f"{text(before)} → {text(after)}"
        self._change.text = formatting.change(before, after)

    def say(self, text: str) -> None:
        self._bar.style("width: 0%")
        self._text.text = text
        self._change.text = ""
