"""Input shapes as people type them."""

from __future__ import annotations

from collections.abc import Iterable

from torchpruner_client import TensorSpec


def parse_shapes(text: str) -> list[TensorSpec] | None:
    """Read one input a line: ``1x3x224x224``, ``name:1x16:int64``. Nothing is ``None``.

    >>> [spec.to_dict() for spec in parse_shapes("tokens:1x16:int64") or ()]
    [{'name': 'tokens', 'shape': [1, 16], 'dtype': 'int64'}]

    Raises ``ValueError`` that names the line.
    """
    specs = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        parts = [part.strip() for part in line.split(":")]
        if len(parts) == 1:
            parts = ["", *parts]
        sizes = parts[1].lower().replace("×", "x").replace(",", "x").replace(" ", "").split("x")
        if len(parts) > 3 or not all(size.isdecimal() for size in sizes):
            raise ValueError(
                f"{line!r} is not an input shape; write it like 1x3x224x224 or tokens:1x16:int64"
            )
        dtype = parts[2] if len(parts) == 3 else "float32"
        specs.append(TensorSpec(parts[0], tuple(map(int, sizes)), dtype))
    return specs or None


def shapes_text(specs: Iterable[TensorSpec]) -> str:
    """Write shapes so that :func:`parse_shapes` reads them.

    >>> shapes_text([TensorSpec("tokens", (1, 16), "int64")])
    'tokens:1x16:int64'
    """
    lines = []
    for spec in specs:
        text = "x".join(map(str, spec.shape))
        if spec.name or spec.dtype != "float32":
            text = f"{spec.name}:{text}" + (f":{spec.dtype}" if spec.dtype != "float32" else "")
        lines.append(text)
    return "\n".join(lines)
