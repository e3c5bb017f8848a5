"""The frontier as SVG: what is kept over what it costs, and the point that was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from torchpruner_client import FrontierPoint
from torchpruner_dashboard import palette

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 520, 170, 44, 30, 12


def frontier_picture(points: Sequence[FrontierPoint], limit: str, chosen: float) -> str:
    """Return the SVG of the points that can be reached; empty where there are none."""
    shown = [(p.fraction, _kept(p, limit)) for p in points if p.costs]
    if not shown:
        return ""
    what = "scores kept" if any(p.score_kept is not None for p in points) else "parameters kept"

    def place(fraction: float, kept: float) -> tuple[float, float]:
        x = LEFT + fraction * (WIDTH - LEFT - 12)
        return x, TOP + (1 - kept) * (HEIGHT - TOP - BOTTOM)

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(f, k) for f, k in shown))
    marks = "".join(
        f'<circle cx="{place(f, k)[0]:.1f}" cy="{place(f, k)[1]:.1f}" '
        f'r="{6 if abs(f - chosen) < 1e-6 else 3}" '
        f'fill="{palette.VERMILION if abs(f - chosen) < 1e-6 else palette.BLUE}">'
        f"<title>{f:.0%} of the cost: {k:.1%} {what}</title></circle>"
        for f, k in shown
    )
    ticks = "".join(
        f'<text class="tp-note" x="{place(f, 0)[0]:.0f}" y="{HEIGHT - 10}" text-anchor="middle">'
        f"{f:.0%}</text>"
        for f in (0.25, 0.5, 0.75)
    ) + "".join(
        f'<text class="tp-note" x="{LEFT - 6}" y="{place(0, k)[1] + 4:.0f}" text-anchor="end">'
        f"{k:.0%}</text>"
        for k in (0.0, 0.5, 1.0)
    )
    label = escape(f"{what} over the share of {limit} that is left", quote=True)
    return (
        f'<svg class="tp-picture" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'style="width: 100%; max-width: {WIDTH}px" aria-label="{label}">'
        f'<polyline class="tp-edge" points="{line}"/>{marks}{ticks}</svg>'
    )


def _kept(point: FrontierPoint, limit: str) -> float:
    if point.score_kept is not None:
        return min(1.0, max(0.0, point.score_kept))
    cost = point.costs["params" if limit != "params" else "flops"]
    return cost["after"] / cost["before"] if cost["before"] else 1.0
