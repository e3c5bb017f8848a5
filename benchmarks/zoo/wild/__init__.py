"""ONNX files as people have them: from published wheels, from converters, quantised, optimised.

Nothing here is committed: wheels are fetched by version into ``build/wild``, and the files that other
tools write are made there.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.zoo.wild import made, published
from benchmarks.zoo.wild.wild_file import WildFile


def files() -> Iterator[WildFile]:
    """Yield every file of the family."""
    yield from published.files()
    yield from made.files()
