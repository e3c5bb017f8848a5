"""The manual's mask: which slices of one tensor are marked for removal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from torchpruner_core.cut_result import AxisCuts, Indices


class Mask:
    """Marked slices of a tensor of ``shape``, one set of indices an axis.

    >>> mask = Mask((4, 3)).set_mask([0, 2], 0)
    >>> mask.indices(0).tolist(), mask.indices(1).tolist()
    ([0, 2], [])
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(int(size) for size in shape)
        self._marked = [np.zeros(size, dtype=np.bool_) for size in self.shape]

    def set_mask(self, index: Iterable[int], dim: int) -> Mask:
        """Mark ``index`` along axis ``dim`` and return the mask."""
        self._marked[dim][np.asarray(list(index), dtype=np.int64)] = True
        return self

    def indices(self, dim: int) -> Indices:
        """Return the sorted int64 indices marked along ``dim``, shape ``(k,)``."""
        return np.flatnonzero(self._marked[dim]).astype(np.int64)

    def cuts(self) -> AxisCuts:
        """Return one entry an axis: ``None``, or the marked indices."""
        return [self.indices(dim) if mark.any() else None for dim, mark in enumerate(self._marked)]

    def __bool__(self) -> bool:
        return any(bool(mark.any()) for mark in self._marked)

    def __repr__(self) -> str:
        marked = {d: self.indices(d).tolist() for d, m in enumerate(self._marked) if m.any()}
        return f"Mask({self.shape}, {marked})"
