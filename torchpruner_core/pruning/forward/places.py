"""Which part of a tensor a call reads or writes, and which part that is once slices are gone.

``y[:, 4:12]``, ``y[:, :8] = ...``, ``w.narrow(0, 2, 16)`` and ``slice_scatter`` name positions. A position
that no module holds is written in the code, and a shape that stays does not say that it is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ArgumentPath = tuple[Any, ...]
"""``('args', 2)``, ``('args', 1, 0)`` in a tuple, ``('args', 1, 0, 'stop')`` in a slice,
``('kwargs', 'scale')``; ``('sizes',)`` stands for the lengths that a split or chunk makes, and
``('rest', k)`` for the positional arguments from the ``k``-th on."""

PLACED = frozenset({"__getitem__", "__setitem__", "narrow", "slice_scatter"})
"""Functions that take positions, which need not equal a size."""


@dataclass(frozen=True)
class Place:
    """The argument of a call that says which part of a tensor of ``shape`` it means."""

    shape: tuple[int, ...]
    argument: ArgumentPath
    value: Any

    def after(self, axis: int, removed: NDArray[np.int64]) -> Any:
        """Return the argument's value that means the same slices once those of an axis are gone.

        ``None`` where no such value is known: the slices are counted with a step, or one goes that
        is named alone.
        """
        if self.argument[0] == "rest":
            return self._range_after(axis, removed)
        entries = self.value if isinstance(self.value, tuple) else (self.value,)
        axes = _axes_of(entries, len(self.shape))
        if axes is None:
            return None
        size = self.shape[axis]
        found: list[Any] = []
        for entry, dim in zip(entries, axes, strict=True):
            new = _entry_after(entry, size, removed) if dim == axis else entry
            if new is None and entry is not None:
                return None
            found.append(new)
        return tuple(found) if isinstance(self.value, tuple) else found[0]

    def _range_after(self, axis: int, removed: NDArray[np.int64]) -> Any:
        dim, start, stop = self.value[:3]
        if dim % len(self.shape) != axis:
            return self.value
        narrow = self.argument == ("rest", 1)
        part = slice(start, start + stop if narrow else stop)
        new = _entry_after(part, self.shape[axis], removed)
        if new is None:
            return None
        return (dim, new.start, new.stop - new.start if narrow else new.stop)


def place_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Place | None:
    """Return what part a call means; ``None`` where it means none, or tensors say which."""
    if name not in PLACED or not args or not isinstance(args[0], torch.Tensor) or kwargs:
        return None
    shape = tuple(args[0].shape)
    if name in ("__getitem__", "__setitem__"):
        entries = args[1] if isinstance(args[1], tuple) else (args[1],)
        plain = all(
            entry is None or entry is Ellipsis or type(entry) in (int, slice) or _is_list(entry)
            for entry in entries
        )
        return Place(shape, ("args", 1), args[1]) if plain else None
    first = 1 if name == "narrow" else 2
    rest = tuple(args[first:])
    numbers = len(rest) >= 3 and all(type(value) is int for value in rest[:3])
    return Place(shape, ("rest", first), rest) if numbers and len(rest) == 3 else None


def _is_list(entry: Any) -> bool:
    return isinstance(entry, list) and bool(entry) and all(type(value) is int for value in entry)


def _axes_of(entries: Sequence[Any], rank: int) -> list[int | None] | None:
    """Return the axis that each entry of an index addresses; ``None`` for one that makes its own."""
    named = sum(entry is not None and entry is not Ellipsis for entry in entries)
    axes: list[int | None] = []
    dim = 0
    for entry in entries:
        if entry is None:
            axes.append(None)
        elif entry is Ellipsis:
            axes.append(None)
            dim += rank - named
        else:
            axes.append(dim)
            dim += 1
    return axes if dim <= rank else None


def _entry_after(entry: Any, size: int, removed: NDArray[np.int64]) -> Any:
    gone = set(removed.tolist())
    if isinstance(entry, slice):
        if entry.step not in (None, 1):
            return None
        return slice(
            _bound(entry.start, size, removed), _bound(entry.stop, size, removed), entry.step
        )
    if isinstance(entry, list):
        kept = [value for value in entry if value % size not in gone]
        return [_position(value, size, removed) for value in kept] or None
    return None if entry % size in gone else _position(entry, size, removed)


def _bound(edge: int | None, size: int, removed: NDArray[np.int64]) -> int | None:
    if edge is None or edge == 0 or edge <= -size:
        return edge
    place = min(edge, size) if edge > 0 else size + edge
    kept = place - int(np.searchsorted(removed, place))
    if edge > 0:
        return kept
    left = kept - (size - len(removed))
    return left if left < 0 else None


def _position(value: int, size: int, removed: NDArray[np.int64]) -> int:
    shift = int(np.searchsorted(removed, value % size))
    return value - shift if value >= 0 else value - shift + len(removed)
