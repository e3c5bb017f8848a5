"""The picture of a cut as SVG: the modules that it reaches, in layers.

Colours come from the palette and from the page's text colour, so that one picture serves the light
and the dark theme; every role has a sign of its own beside its colour.
"""

from __future__ import annotations

from html import escape

from torchpruner_dashboard import palette
from torchpruner_dashboard.cuts.layers import Place, places_of
from torchpruner_dashboard.cuts.reach import Box, Reach, Role
from torchpruner_dashboard.formatting import plural, short_name, whole

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 196, 46, 20, 24, 12

ROLES: dict[Role, tuple[str, str, str]] = {
    "source": (palette.VERMILION, "●", "what you asked to cut"),
    "layer": (palette.BLUE, "■", "parameters go"),
    "join": (palette.ORANGE, "⊕", "residual join"),
    "concat": (palette.PURPLE, "∪", "concatenation"),
    "split": (palette.GREY, "Y", "split"),
    "view": (palette.YELLOW, "▦", "heads or groups"),
    "norm": (palette.SKY, "≈", "statistics change"),
    "end": (palette.GREEN, "◆", "input or output"),
}
"""Colour, sign and meaning of each role."""


def picture(reach: Reach, columns: int = 4) -> str:
    """Return the SVG element of ``reach``; names are escaped."""
    places = places_of(reach, columns)
    if not places:
        return ""
    columns = max(place.column for place in places.values()) + 1
    rows = max(place.row for place in places.values()) + 1
    width = 2 * MARGIN + columns * (WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + rows * (HEIGHT + GAP_Y) - GAP_Y
    edges = "".join(_edge(places[a], places[b]) for a, b in sorted(reach.edges))
    shared = _shared_prefix(reach)
    boxes = "".join(_box(reach.boxes[key], place, shared) for key, place in places.items())
    return (
        f'<svg class="tp-picture" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" aria-label="{escape(summary(reach), quote=True)}">'
        '<defs><marker id="tp-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
        'markerHeight="6" orient="auto"><path d="M0 0 8 4 0 8z" class="tp-arrow"/></marker></defs>'
        f"{edges}{boxes}</svg>"
    )


def summary(reach: Reach) -> str:
    """One sentence for those who cannot see the picture."""
    cut = [box for box in reach.boxes.values() if box.removed]
    joins = sum(box.role in {"join", "concat"} for box in reach.boxes.values())
    return (
        f"The cut reaches {plural(len(cut), 'module')} with parameters "
        f"and {plural(joins, 'place')} where branches meet."
    )


def roles_in(reach: Reach) -> list[Role]:
    """The roles that occur, in the legend's order."""
    found = {box.role for box in reach.boxes.values()}
    return [role for role in ROLES if role in found]


def _edge(a: Place, b: Place) -> str:
    x1, y1 = _corner(a)
    x2, y2 = _corner(b)
    x1, y1, x2 = x1 + WIDTH // 2, y1 + HEIGHT, x2 + WIDTH // 2
    if b.row - a.row > 1:
        # Past the boxes between, in the gutter on the left of where it goes to.
        side = x2 - WIDTH // 2 - GAP_X // 2 + 4
        start = x1 - 60 if a.column == b.column else x1
        half = GAP_Y // 2
        path = f"M{start} {y1} C{start} {y1 + half} {side} {y1} {side} {y1 + GAP_Y} "
        path += f"L{side} {y2 - GAP_Y} C{side} {y2} {x2 - 60} {y2 - half} {x2 - 60} {y2 - 1}"
    elif b.row <= a.row:
        # Beside each other, or back up: out on the right and into the side.
        right = x1 + WIDTH // 2 + GAP_X // 2
        middle = y2 + HEIGHT // 2
        path = f"M{x1} {y1} C{x1} {y1 + GAP_Y} {right} {y1 + GAP_Y} {right} {y1} "
        path += (
            f"L{right} {middle + 8} C{right} {middle} {right} {middle} {_corner(b)[0] - 1} {middle}"
        )
    else:
        bend = max(10, (y2 - y1) // 2)
        path = f"M{x1} {y1} C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2 - 1}"
    return f'<path class="tp-edge" d="{path}" marker-end="url(#tp-arrow)"/>'


def _shared_prefix(reach: Reach) -> str:
    """The module that holds every box, with its dot: not worth writing on each of them."""
    names = [box.module.split(".")[:-1] for box in reach.boxes.values() if box.role != "end"]
    shared: list[str] = []
    for parts in zip(*names, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "".join(f"{part}." for part in shared)


def _box(box: Box, place: Place, shared: str) -> str:
    x, y = _corner(place)
    colour, sign, meaning = ROLES[box.role]
    name = short_name(box.module.removeprefix(shared), 23)
    lines = [f"{box.module} · {box.type} · {meaning}"]
    lines += [f"{n}: {whole(k)} of {whole(width)} along axis {d}" for n, d, k, width in box.removed]
    strong = ' class="tp-box tp-box-source"' if box.role == "source" else ' class="tp-box"'
    return (
        f"<g><title>{escape(chr(10).join(lines[:14]))}</title>"
        f'<rect{strong} x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<rect x="{x}" y="{y}" width="6" height="{HEIGHT}" rx="3" fill="{colour}"/>'
        f'<text class="tp-sign" x="{x + 12}" y="{y + 20}">{sign}</text>'
        f'<text class="tp-name" x="{x + 28}" y="{y + 20}">{escape(name)}</text>'
        f'<text class="tp-note" x="{x + 28}" y="{y + 37}">{escape(_note(box))}</text></g>'
    )


def _note(box: Box) -> str:
    if box.members > 1:
        return f"{plural(box.members, 'module')}, {plural(len(box.removed), 'axis', 'axes')} cut"
    if not box.removed:
        return box.type
    by_dim: dict[int, tuple[int, int]] = {}
    for _, dim, removed, width in box.removed:
        by_dim.setdefault(dim, (removed, width))
    parts = [f"axis {dim}: −{k}/{width}" for dim, (k, width) in sorted(by_dim.items())]
    return " · ".join(parts[:2])


def _corner(place: Place) -> tuple[int, int]:
    return MARGIN + place.column * (WIDTH + GAP_X), MARGIN + place.row * (HEIGHT + GAP_Y)
