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
    tiles = _tiles(outline, measure)
    return {
        # Rich text is drawn, not parsed as HTML: a model's names are a stranger's.
        "tooltip": {
            "renderMode": "richText",
            ":formatter": "p => (p.data && p.data.path) ? `${p.data.path}\\n${p.data.text}` : ''",
        },
        "series": [
            {
                "type": "treemap",
                "data": tiles,
                "name": MEASURES[measure],
                "roam": False,
                "left": 0,
                "right": 0,
                "top": 0,
                "bottom": 34,
                "visibleMin": 120,
                "childrenVisibleMin": 2500,
                "breadcrumb": {"height": 24, "bottom": 2},
                "label": {
                    ":formatter": "p => `${p.name}\\n${p.data.text}`",
                    "fontSize": 12,
                    "lineHeight": 16,
                },
                "upperLabel": {
                    "show": True,
                    "height": 20,
                    "fontSize": 12,
                    "color": "#ffffff",
                    ":formatter": "p => p.data.text ? `${p.name} · ${p.data.text}` : p.name",
                },
                "itemStyle": {
                    "gapWidth": 1,
                    "borderWidth": 1,
                    "borderColor": "#5b6472",
                },
                "levels": [{"upperLabel": {"show": False}, "itemStyle": {"borderWidth": 0}}],
            }
        ],
    }


def _tiles(outline: ModelOutline, measure: str) -> list[dict[str, Any]]:
    children: dict[str, list[str]] = {}
    for name, record in outline.modules.items():
        if record.parent is not None and not outline.is_tensor(name):
            children.setdefault(record.parent, []).append(name)

    def below(name: str) -> list[str]:
        return [child for child in children.get(name, []) if _value(outline, child, measure)]

    def tile(name: str, prefix: str = "") -> dict[str, Any]:
        inner = below(name)
        parts = name.split(".")
        # A number alone says nothing: take the name of the list that it is in.
        own = prefix + (".".join(parts[-2:]) if parts[-1].isdecimal() and not prefix else parts[-1])
        if len(inner) == 1 and _value(outline, inner[0], measure) == _value(outline, name, measure):
            # A module that only wraps another: one tile for both.
            return tile(inner[0], f"{own}.")
        record = outline.modules[name]
        value = _value(outline, name, measure)
        text = formatting.flops(value) if measure == "flops" else formatting.count(value)
        found = {"name": own, "value": value, "text": text, "path": f"{name} · {record.type}"}
        if inner:
            return {**found, "children": [tile(child) for child in inner]}
        colour = palette.type_colour(record.type)
        style = {"color": colour, "borderColor": colour}
        return {**found, "itemStyle": style, "label": {"color": palette.text_on(colour)}}

    return [tile(child) for child in below("self")] or [tile("self")]


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
