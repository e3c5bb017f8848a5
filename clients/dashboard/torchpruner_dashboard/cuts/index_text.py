"""Indices as people type them: ``0-3, 8``."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 1_000_000


def parse_indices(text: str) -> tuple[int, ...]:
    """Return the sorted indices that ``text`` lists; ranges include their ends.

    >>> parse_indices("0-3, 8")
    (0, 1, 2, 3, 8)

    Raises ``ValueError`` that names the part which is not an index or a range.
    """
    found: set[int] = set()
    for part in text.replace(";", ",").replace(" ", ",").split(","):
        if not part:
            continue
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{part!r} is not an index or a range; write them like 0-3, 8")
        start, end = int(first), int(last) if dash else int(first)
        if end < start:
            raise ValueError(f"{part!r} runs backwards; write {end}-{start}")
        if end - start > LONGEST:
            raise ValueError(f"{part!r} is longer than any axis")
        found.update(range(start, end + 1))
    return tuple(sorted(found))


def indices_text(indices: Iterable[int]) -> str:
    """Return what :func:`parse_indices` reads.

    >>> indices_text([0, 1, 2, 3, 8])
    '0-3, 8'
    """
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
