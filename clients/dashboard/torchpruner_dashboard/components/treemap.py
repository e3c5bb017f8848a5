"""A treemap of FLOPs or parameters: where the model's weight is."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from torchpruner_dashboard import formatting, palette
from torchpruner_dashboard.model_graphs import ModelOutline

MEASURES = {"flops": "FLOPs", "params": "Parameters"}


def treemap(outline: ModelOutline) -> None:
    """A chart to press into; colours are module kinds, named on the tiles and in the legend."""
    with ui.row().classes("tp-row"):
        toggle = ui.toggle(MEASURES, value="flops").props("no-caps dense unelevated")
        with ui.element("div").classes("tp-legend"):
            for part, colour in palette.TYPE_COLOURS:
                _key(part, colour)
            _key("other", palette.GREY)
    with ui.column().classes("tp-card"):
        chart = ui.echart(options(outline, "flops")).style("height: 520px; width: 100%")
    # ECharts keeps the zoom of the old data unless the options are replaced as a whole.
    toggle.on_value_change(lambda event: _redraw(chart, options(outline, str(event.value))))


def options(outline: ModelOutline, measure: str) -> dict[str, Any]:
    """ECharts' options; every tile has its module's name and formatted value."""
    children: dict[str, list[str]] = {}
    for name, record in outline.modules.items():
        if record.parent is not None and not outline.is_tensor(name):
            children.setdefault(record.parent, []).append(name)

    def node(name: str) -> dict[str, Any]:
        record = outline.modules[name]
        value = int(getattr(record, measure))
        text = formatting.flops(value) if measure == "flops" else formatting.count(value)
        colour = palette.type_colour(record.type)
        found: dict[str, Any] = {
            "name": name.rpartition(".")[2],
            "value": value,
            "text": text,
            "path": f"{name} · {record.type}",
            "itemStyle": {"color": colour},
            "label": {"color": palette.text_on(colour)},
        }
        below = [node(child) for child in children.get(name, []) if _value(outline, child, measure)]
        if below:
            found["children"] = below
        return found

    root = node("self")
    return {
        # Rich text is drawn, not parsed as HTML: a model's names are a stranger's.
        "tooltip": {
            "renderMode": "richText",
            ":formatter": "p => (p.data && p.data.path) ? `${p.data.path}\\n${p.data.text}` : ''",
        },
        "series": [
            {
                "type": "treemap",
                "data": root.get("children") or [root],
                "name": MEASURES[measure],
                "leafDepth": 2,
                "roam": False,
                "width": "100%",
                "top": 4,
                "bottom": 34,
                "breadcrumb": {"height": 24, "bottom": 4},
                "label": {":formatter": "p => `${p.name}\\n${p.data.text}`", "fontSize": 12},
                "upperLabel": {"show": True, "height": 22, "color": palette.CHART_TEXT},
                "itemStyle": {"gapWidth": 2, "borderWidth": 1, "borderColor": "#8a8f9855"},
                "levels": [{"itemStyle": {"gapWidth": 3}}, {"itemStyle": {"gapWidth": 2}}],
            }
        ],
    }


def _value(outline: ModelOutline, name: str, measure: str) -> int:
    return int(getattr(outline.modules[name], measure))


def _redraw(chart: ui.echart, new: dict[str, Any]) -> None:
    chart.options.clear()
    chart.options.update(new)
    chart.update()


def _key(name: str, colour: str) -> None:
    with ui.element("span").style("display: inline-flex; align-items: center; gap: 5px"):
        ui.element("span").style(
            f"width: 11px; height: 11px; border-radius: 2px; background: {colour}"
        )
        ui.label(name)
