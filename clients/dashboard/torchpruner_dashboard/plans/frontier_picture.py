"""The frontier as SVG: what is kept over what it costs, and the point that was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from torchpruner_client import FrontierPoint
from torchpruner_dashboard import palette
from torchpruner_dashboard.plans.plan_choice import WITHIN

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 560, 200, 52, 16, 44, 12


def frontier_picture(points: Sequence[FrontierPoint], limit: str, chosen: float) -> str:
    """Return the SVG of the points that can be reached; empty where there are none. Each point is an
    element with its percent as ``data-percent``."""
    shown = [(p.fraction, _kept(p, limit)) for p in points if p.costs]
    if not shown:
        return ""
    what = "Importance kept" if any(p.score_kept is not None for p in points) else _other(limit)

    def place(fraction: float, kept: float) -> tuple[float, float]:
        x = LEFT + fraction * (WIDTH - LEFT - RIGHT)
        return x, TOP + (1 - kept) * (HEIGHT - TOP - BOTTOM)

    def is_chosen(fraction: float) -> bool:
        return abs(fraction - chosen) < 1e-6

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(f, k) for f, k in shown))
    marks = "".join(
        f'<g class="tp-point" data-percent="{round(100 * f)}">'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="11" fill="transparent"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{7 if is_chosen(f) else 3.5}" '
        f'fill="{palette.VERMILION if is_chosen(f) else palette.BLUE}"/>'
        f"<title>{f:.0%} of the {WITHIN[limit]}: {what.lower()} {k:.1%}</title></g>"
        for f, k in shown
        for x, y in [place(f, k)]
    )
    told = next((place(f, k) + (k,) for f, k in shown if is_chosen(f)), None)
    if told is not None:
        x, y, kept = told
        marks += f'<text x="{x + 12:.0f}" y="{y + 16:.0f}" font-weight="600">{kept:.0%}</text>'
    grid = "".join(
        f'<line class="tp-grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tp-note" x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{k:.0%}</text>'
        for k in (0.0, 0.5, 1.0)
        for y in [place(0, k)[1]]
    ) + "".join(
        f'<text class="tp-note" x="{place(f, 0)[0]:.0f}" y="{HEIGHT - 26}" text-anchor="middle">'
        f"{f:.0%}</text>"
        for f in (0, 0.25, 0.5, 0.75, 1)
    )
    middle = (LEFT + WIDTH - RIGHT) / 2
    under = f"Share of the {WITHIN[limit]} that is left"
    titles = f'<text class="tp-note" x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{under}</text>'
    label = escape(f"{what} over the share of the {WITHIN[limit]} that is left", quote=True)
    return (
        f'<svg class="tp-picture tp-frontier" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'style="width: 100%; max-width: {WIDTH}px" aria-label="{label}">'
        f'{grid}{titles}<polyline class="tp-edge" points="{line}"/>{marks}</svg>'
    )


def _other(limit: str) -> str:
    return "Parameters kept" if limit != "params" else "FLOPs kept"


def _kept(point: FrontierPoint, limit: str) -> float:
    if point.score_kept is not None:
        return min(1.0, max(0.0, point.score_kept))
    cost = point.costs["params" if limit != "params" else "flops"]
    return cost["after"] / cost["before"] if cost["before"] else 1.0
