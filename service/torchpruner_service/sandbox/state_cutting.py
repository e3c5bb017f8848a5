"""Removes the slices of cuts from a state, one tensor at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.cut_result import CutResult, Renumbering
from torchpruner_service.problems import Conflict
from torchpruner_service.sandbox.state_reading import StoredTensor

ROOT = "self."

Axes = list[NDArray[np.int64] | None]


def cut_tensors(
    state: dict[str, StoredTensor], cuts: Sequence[CutResult]
) -> dict[str, StoredTensor]:
    """Return the state after ``cuts``, applied in order; elements are still read one tensor at a
    time.

    Names keep their order and lose nothing, so that the pruned module loads it with
    ``strict=True``. A tensor that shares its memory with a cut one is cut like it. Raises a
    ``Conflict`` where a cut does not fit the state.
    """
    result = {}
    by_storage = _cut_by_storage(state, cuts)
    for name, tensor in state.items():
        for number, cut in enumerate(cuts):
            axes = cut.terminal.get(ROOT + name) or by_storage.get((tensor.storage, number))
            if axes is not None:
                tensor = _cut(name, tensor, axes)
            renumbering = cut.renumbers.get(ROOT + name)
            if renumbering is not None:
                tensor = _renumbered(tensor, renumbering)
        result[name] = tensor
    _check_all_used(state, cuts)
    return result


def _renumbered(tensor: StoredTensor, renumbering: Renumbering) -> StoredTensor:
    """Return a tensor of positions with the values it has once the axis it addresses is cut."""

    def bits() -> NDArray[Any]:
        return renumbering.apply(tensor.bits())

    return replace(tensor, bits=bits)


def _cut_by_storage(
    state: dict[str, StoredTensor], cuts: Sequence[CutResult]
) -> dict[tuple[int, int], Axes]:
    found: dict[tuple[int, int], Axes] = {}
    for name, tensor in state.items():
        for number, cut in enumerate(cuts):
            axes = cut.terminal.get(ROOT + name)
            if axes is not None and tensor.storage:
                found[tensor.storage, number] = axes
    return found


def _check_all_used(state: dict[str, StoredTensor], cuts: Sequence[CutResult]) -> None:
    for cut in cuts:
        known = {ROOT + name for name in state} | set(cut.literals)
        missing = [name for name in cut.terminal if name not in known]
        if missing:
            raise Conflict(
                f"the cut names {missing[0]}, which is not among the model's weights; the "
                f"result was "
                "made for another model, or the file does not keep that parameter under its "
                "own name",
                slug="cut-mismatch",
                missing=missing[:20],
            )


def _cut(name: str, tensor: StoredTensor, axes: Axes) -> StoredTensor:
    if len(axes) != len(tensor.shape):
        raise Conflict(
            f"the cut has {len(axes)} axes for {name}, which has the shape {list(tensor.shape)}",
            slug="cut-mismatch",
            tensor=name,
        )
    shape = list(tensor.shape)
    for dim, indices in enumerate(axes):
        if indices is None or not len(indices):
            continue
        if int(indices[-1]) >= shape[dim] or int(indices[0]) < 0:
            raise Conflict(
                f"the cut removes index {int(indices[-1])} of axis {dim} of {name}, which has "
                f"{shape[dim]} slices",
                slug="cut-mismatch",
                tensor=name,
                dim=dim,
            )
        shape[dim] -= len(indices)

    def bits() -> NDArray[Any]:
        array = tensor.bits()
        for dim, indices in enumerate(axes):
            if indices is not None and len(indices):
                array = np.delete(array, indices, axis=dim)
        return np.ascontiguousarray(array)

    return replace(tensor, shape=tuple(shape), bits=bits)
