"""Tables that a module holds beside its buffers: arrays, tensors, lists of numbers, in containers too.

``self.scale = np.linspace(...)``, ``self.keep = {'a': [0, 3, 5]}``: a program knows such a table as a
constant, and not whose it is. It is assumed that a table has an entry for each slice of what is cut, or
lists positions; which slices go from it, values must confirm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torchpruner_core.pruning.tensors.positions import WHOLE_NUMBERS

DEEP = 3
"""So many containers within one another are looked into."""

Indices = NDArray[np.int64]


def tables(value: Any, depth: int = DEEP) -> Iterator[tuple[Any, Callable[[Any], Any]]]:
    """Yield each table in an attribute's value, with what makes the value anew around another table."""
    if _is_table(value):
        yield value, _as_it_is
        return
    if depth == 0 or type(value) not in (dict, list, tuple):
        return
    keys = list(value) if type(value) is dict else range(len(value))
    for key in keys:
        for table, rebuilt in tables(value[key], depth - 1):
            yield table, partial(_around, value, key, rebuilt)


def shape_of(table: Any) -> tuple[int, ...]:
    """Return a table's shape; a list of numbers has one axis."""
    return (len(table),) if type(table) in (list, tuple) else tuple(table.shape)


def without(table: Any, axis: int, gone: Indices) -> Any:
    """Return a table less some entries of an axis."""
    kept = np.delete(np.arange(shape_of(table)[axis]), gone)
    if isinstance(table, torch.Tensor):
        return table.detach().index_select(axis, torch.from_numpy(kept).to(table.device))
    if isinstance(table, np.ndarray):
        return np.take(table, kept, axis=axis)
    return type(table)(table[k] for k in kept.tolist())


def positions_in(table: Any) -> list[int] | None:
    """Return the whole numbers along a table's one axis, if it is a list of such."""
    shape = shape_of(table)
    if sum(size != 1 for size in shape) > 1:
        return None
    if isinstance(table, torch.Tensor):
        if table.is_meta or table.dtype not in WHOLE_NUMBERS:
            return None
        return [int(entry) for entry in table.ravel().tolist()]
    if isinstance(table, np.ndarray):
        return [int(entry) for entry in table.ravel()] if table.dtype.kind in "iu" else None
    return list(table) if all(type(entry) is int for entry in table) else None


def with_positions(table: Any, entries: Sequence[int]) -> Any:
    """Return a table of the same kind that lists other positions."""
    shape = [-1 if size != 1 else 1 for size in shape_of(table)]
    if isinstance(table, torch.Tensor):
        made = torch.tensor(entries, dtype=table.dtype, device=table.device)
        return made.reshape(shape) if shape else made
    if isinstance(table, np.ndarray):
        return np.array(entries, dtype=table.dtype).reshape(shape)
    return type(table)(entries)


def described(value: Any) -> str:
    """Return a text that is the same for equal values only, whatever tables they hold."""
    if isinstance(value, torch.Tensor):
        if value.is_meta:
            return f"meta {tuple(value.shape)}"
        data = value.detach().cpu().contiguous()
        numbers = data.reshape(-1).view(torch.uint8).numpy().tobytes() if data.numel() else b""
        return f"{data.dtype} {tuple(data.shape)} {hashlib.sha256(numbers).hexdigest()}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if type(value) is dict:
        return f"{{{', '.join(f'{key!r}: {described(entry)}' for key, entry in value.items())}}}"
    if type(value) in (list, tuple):
        return f"{type(value).__name__}({', '.join(map(described, value))})"
    return repr(value)


def _is_table(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return type(value) is torch.Tensor and value.dim() > 0
    if isinstance(value, np.ndarray):
        return value.ndim > 0 and value.dtype.kind in "biufc"
    if type(value) not in (list, tuple) or len(value) < 2:
        return False
    return all(type(entry) in (bool, int, float) for entry in value)


def _as_it_is(table: Any) -> Any:
    return table


def _around(container: Any, key: Any, rebuilt: Callable[[Any], Any], table: Any) -> Any:
    return _replaced(container, key, rebuilt(table))


def _replaced(container: Any, key: Any, entry: Any) -> Any:
    if type(container) is dict:
        return {**container, key: entry}
    entries = list(container)
    entries[key] = entry
    return type(container)(entries)
