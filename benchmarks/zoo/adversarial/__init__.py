"""Small networks whose code counts or addresses channels with constants of its own.

Each is a way in which a cut can be followed by the shapes and not by the values: indices in buffers,
prefixes of wider weights, states made like other tensors, sizes used as numbers, statistics with a
count in them, writes into part of a tensor, cells that unroll, branches taken in training, tables that no
buffer holds, and code that asks a size which way to go.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.zoo.adversarial import (
    branches,
    cells,
    choices,
    indices,
    numbers,
    parts,
    sizes,
    statistics,
    tables,
    templates,
    writes,
)
from benchmarks.zoo.specimen import Specimen

KINDS = (
    indices, parts, templates, sizes, numbers, statistics, writes, cells, branches, tables, choices,
)  # fmt: skip


def specimens() -> Iterator[Specimen]:
    """Yield every network of every kind."""
    for kind in KINDS:
        yield from kind.specimens()
