"""What a user may write for indices and requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchpruner_core.cut_result import CutRequest, CutResult

Indices = Any
"""A sequence, a numpy array or a tensor of integers."""


def index_of(index: Indices) -> tuple[int, ...]:
    """Return indices as plain integers. Raises ``TypeError`` for anything but a flat list of
    integers."""
    values = index.tolist() if hasattr(index, "tolist") else index
    if isinstance(values, (str, bytes)) or not isinstance(
        values, (Sequence, range, set, frozenset)
    ):
        raise TypeError(f"index is a list or an array of integers, not {type(index).__name__}")
    found = []
    for value in values:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"index holds {value!r}, which is not an integer")
        found.append(int(value))
    return tuple(found)


def request_of(item: Any) -> CutRequest:
    """Return a request given as one, or as ``(node, dim, index)``."""
    if isinstance(item, CutRequest):
        return item
    node, dim, index = item
    return CutRequest(str(node), int(dim), index_of(index))


def result_body(result: CutResult | None) -> dict[str, Any]:
    """The member of a request that carries a result."""
    return {} if result is None else {"result": result.to_dict()}
