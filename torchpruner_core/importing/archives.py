"""Archives of an ONNX file and its data files: told by their names, with nothing loaded."""

from __future__ import annotations


def is_archive(data: bytes | bytearray | memoryview) -> bool:
    """Return whether ``data`` begins as a zip archive does."""
    return bytes(data[:4]) == b"PK\x03\x04"


def model_in(names: list[str]) -> str | None:
    """Return the one member of an archive that is an ONNX file, ``None`` where there is none or more."""
    found = [name for name in names if name.lower().endswith(".onnx")]
    return found[0] if len(found) == 1 else None
