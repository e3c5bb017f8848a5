"""Where the boxes of a picture go: layers from top to bottom, the trunk in a column of its own.

Sugiyama's scheme, kept small: longest-path layers, branches pulled down to where they join, and
boxes of one layer in the order of what they hang from.
"""

from __future__ import annotations

from dataclasses import dataclass

from torchpruner_dashboard.cuts.reach import Box, Reach

TRUNK = {"source", "join", "concat", "view", "split"}


@dataclass(frozen=True, slots=True)
class Place:
    """A cell of the grid, counted from the top left."""

    row: int
    column: int


def places_of(reach: Reach, columns: int) -> dict[str, Place]:
    """Return a cell for every box; a layer wider than ``columns`` takes several rows."""
    order = _order(reach)
    edges = [(a, b) for a, b in reach.edges if order[a] < order[b]]
    layers = _layers(list(order), edges)
    trunk = sum(box.role in TRUNK for box in reach.boxes.values()) > 1
    above: dict[str, list[str]] = {key: [] for key in order}
    for a, b in edges:
        above[b].append(a)
    places: dict[str, Place] = {}
    row = 0
    for layer in range(max(layers.values(), default=-1) + 1):
        members = [key for key in order if layers[key] == layer]
        row = _place(members, reach, places, above, row, columns, 1 if trunk else 0)
    return places


def _place(
    members: list[str],
    reach: Reach,
    places: dict[str, Place],
    above: dict[str, list[str]],
    row: int,
    columns: int,
    reserved: int,
) -> int:
    """Give the boxes of one layer their cells from ``row`` on; return the next free row."""

    def hangs_from(key: str) -> float:
        found = [places[name].column for name in above[key] if name in places]
        return sum(found) / len(found) if found else float(columns)

    def is_trunk(key: str) -> bool:
        return reach.boxes[key].role in TRUNK

    members = sorted(members, key=lambda key: (not is_trunk(key), hangs_from(key)))
    start, column = row, 0
    for key in members:
        if column < reserved and not is_trunk(key):
            column = reserved
        if column >= columns:
            row, column = row + 1, 0 if is_trunk(key) else reserved
        places[key] = Place(row, column)
        column += 1
    return row + 1 if members else start


def _order(reach: Reach) -> dict[str, int]:
    """Boxes in the order in which the model runs; its inputs first."""

    def rank(box: Box) -> int:
        return 0 if box.type == "input" else 1

    ordered = sorted(reach.boxes.values(), key=rank)
    return {box.id: position for position, box in enumerate(ordered)}


def _layers(keys: list[str], edges: list[tuple[str, str]]) -> dict[str, int]:
    layers = dict.fromkeys(keys, 0)
    position = {key: number for number, key in enumerate(keys)}
    below: dict[str, list[str]] = {key: [] for key in keys}
    for a, b in sorted(edges, key=lambda edge: position[edge[0]]):
        below[a].append(b)
    for key in keys:
        for follower in below[key]:
            layers[follower] = max(layers[follower], layers[key] + 1)
    for key in reversed(keys):
        if below[key]:
            layers[key] = min(layers[follower] for follower in below[key]) - 1
    return layers
