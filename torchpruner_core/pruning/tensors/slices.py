"""Cutting one tensor along its axes, and putting the slices back.

A cut tensor keeps its identity: its values are replaced, so an optimizer's param groups, hooks,
a tied parameter's other name and a distributed wrapper go on pointing to the same object. The
gradient is cut along. What is removed is kept axis by axis: the slices of axis ``i`` are taken after
those of the axes before it are gone, so every element is kept once, and recovery walks the axes
backwards.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torchpruner_core.errors import CutMismatchError, UnsupportedModuleError
from torchpruner_core.pruning.tensors.replacing import replace_data

Axes = Sequence[Any]
"""One entry an axis: ``None`` or an empty list for an axis that stays, else the indices to remove."""


class RemovedSlices(list["torch.Tensor | None"]):
    """The slices taken out of one tensor: one entry an axis, ``None`` where nothing was cut.

    ``shape`` is the tensor's shape before, ``order`` its axes from the outermost in memory to the
    innermost (so that ``channels_last`` comes back), ``grad`` the gradient's slices, or ``None``
    where there was no gradient. ``token`` names the gradient that was left in this process.
    """

    shape: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    grad: RemovedSlices | None = None
    token: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self),), self.__dict__


_left: weakref.WeakValueDictionary[str, torch.Tensor] = weakref.WeakValueDictionary()
"""The shortened gradients that cuts left behind, as long as they live."""


def read_axes(
    cut_dims: Axes, shape: Sequence[int], name: str = "the tensor"
) -> list[NDArray[np.int64] | None]:
    """Return sorted unique indices an axis, checked against ``shape``.

    Raises :class:`CutMismatchError` where the rank differs, an index is outside the axis, or
    nothing would be left of one.
    """
    if len(cut_dims) != len(shape):
        raise CutMismatchError(
            f"{name} has {len(shape)} axes {tuple(shape)}, and the cut names {len(cut_dims)}: "
            "analyse this very model and cut it with that result",
            node=name,
            expected=len(cut_dims),
            received=len(shape),
        )
    axes: list[NDArray[np.int64] | None] = []
    for axis, (indices, size) in enumerate(zip(cut_dims, shape, strict=True)):
        if indices is None or len(indices) == 0:
            axes.append(None)
            continue
        array = np.asarray(indices)
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise CutMismatchError(
                f"the indices of {name} along axis {axis} are not a list of integers: {indices!r}",
                node=name,
                axis=axis,
            )
        array = np.unique(array).astype(np.int64)
        if array[0] < 0 or array[-1] >= size:
            outside = int(array[0] if array[0] < 0 else array[-1])
            raise CutMismatchError(
                f"{name} has {size} slices along axis {axis}, and the cut removes index {outside}: "
                "was it cut already, or is this another model?",
                node=name,
                axis=axis,
                expected=f"indices below {size}",
                received=outside,
            )
        if len(array) == size:
            raise CutMismatchError(
                f"the cut would leave nothing of {name} along axis {axis} ({size} slices)",
                node=name,
                axis=axis,
                expected=f"at most {size - 1} indices",
                received=len(array),
            )
        axes.append(array)
    return axes


def axes_of_record(
    cut_dims: Axes, before: Sequence[int], name: str
) -> list[NDArray[np.int64] | None]:
    """Return the axes of a tensor that was cut; of complex numbers a cut names one axis more."""
    return read_axes(list(cut_dims)[: len(before)], before, name)


def kept(indices: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the indices of an axis of ``size`` that are not in ``indices``."""
    return np.delete(np.arange(size), indices)


def shape_after(shape: Sequence[int], axes: Sequence[NDArray[np.int64] | None]) -> tuple[int, ...]:
    """Return the shape that is left.

    >>> shape_after((4, 3), [np.array([0]), None])
    (3, 3)
    """
    return tuple(
        size if cut is None else size - len(cut) for size, cut in zip(shape, axes, strict=True)
    )


def cut_data(
    data: torch.Tensor, axes: Sequence[NDArray[np.int64] | None]
) -> tuple[torch.Tensor, RemovedSlices]:
    """Return a new tensor without the slices, and the slices; ``data`` is not changed."""
    removed = RemovedSlices()
    removed.shape = tuple(data.shape)
    removed.order = memory_order(data)
    for axis, indices in enumerate(axes):
        if indices is None:
            removed.append(None)
            continue
        removed.append(_take(data, axis, indices))
        data = _take(data, axis, kept(indices, data.shape[axis]))
    return laid_out(data, removed.order), removed


def restore_data(
    data: torch.Tensor,
    axes: Sequence[NDArray[np.int64] | None],
    removed: Sequence[torch.Tensor | None] | None,
    fill: float = 0.0,
) -> torch.Tensor:
    """Return ``data`` with the slices put back; ``removed=None`` puts ``fill`` in their place."""
    order = removed.order if isinstance(removed, RemovedSlices) else memory_order(data)
    for axis in reversed(range(len(axes))):
        indices = axes[axis]
        if indices is None:
            continue
        size = data.shape[axis] + len(indices)
        shape = [*data.shape[:axis], size, *data.shape[axis + 1 :]]
        whole = torch.full(shape, fill, dtype=data.dtype, device=data.device)
        whole.index_copy_(axis, _positions(kept(indices, size), data), data)
        if removed is not None:
            piece = removed[axis]
            fitting = [*shape[:axis], len(indices), *shape[axis + 1 :]]
            received = None if piece is None else list(piece.shape)
            if piece is None or received != fitting:
                raise CutMismatchError(
                    f"the removed slices do not fit a tensor of shape {tuple(data.shape)} along axis {axis}",
                    axis=axis,
                    expected=fitting,
                    received=received,
                )
            whole.index_copy_(axis, _positions(indices, data), torch.as_tensor(piece).to(data))
        data = whole
    return laid_out(data, order)


def memory_order(tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the axes from the outermost in memory to the innermost.

    A plain contiguous tensor of rank 4 gives ``(0, 1, 2, 3)``, a channels-last one ``(0, 2, 3, 1)``.
    Axes of length 1 and expanded ones say nothing about the layout, and keep their place.
    """
    plain = tuple(range(tensor.dim()))
    if tensor.layout is not torch.strided or tensor.is_contiguous() or 0 in tensor.stride():
        return plain
    strides = tensor.stride()
    return tuple(sorted(plain, key=lambda axis: (-strides[axis], axis)))


def laid_out(tensor: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """Return a dense copy of ``tensor`` whose axes lie in memory in that order."""
    if tensor.layout is not torch.strided or tensor.dim() == 0:
        return tensor
    inverse = [order.index(axis) for axis in range(tensor.dim())]
    return tensor.permute(*order).contiguous().permute(*inverse)


def _take(data: torch.Tensor, axis: int, indices: NDArray[np.int64]) -> torch.Tensor:
    return data.index_select(axis, _positions(indices, data))


def _positions(indices: NDArray[np.int64], data: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(indices).to(data.device)


def set_cut_tensor(tensor: torch.Tensor, cut_dims: Axes) -> tuple[torch.Tensor, RemovedSlices]:
    """Remove slices from ``tensor`` and from its gradient.

    ``cut_dims`` has one entry an axis. Returns the same tensor object, shortened, and the removed
    slices. Raises :class:`CutMismatchError` before anything is changed.
    """
    axes = read_axes(cut_dims, tensor.shape)
    refuse_unsliceable(tensor)
    with torch.no_grad():
        data, removed = cut_data(tensor.detach(), axes)
        grad = cut_gradient(tensor, axes, removed)
        replace_data(tensor, data, grad)
    return tensor, removed


def recovery_cut_tensor(
    tensor: torch.Tensor, cut_dims: Axes, param_list: Sequence[torch.Tensor | None] | None
) -> torch.Tensor:
    """Put back what :func:`set_cut_tensor` removed; ``param_list=None`` puts zeros.

    Slices that stayed keep their present values, so what was learnt in between is not lost. A
    gradient that came after the cut gets zeros in the place of the removed slices; one that was
    cleared stays cleared.
    """
    before = [
        size + (0 if cut is None else len(cut))
        for size, cut in zip(tensor.shape, cut_dims, strict=True)
    ]
    axes = read_axes(cut_dims, before)
    with torch.no_grad():
        data = restore_data(tensor.detach(), axes, param_list)
        grad = restored_gradient(tensor, axes, param_list)
        replace_data(tensor, data, grad)
    return tensor


def cut_gradient(
    tensor: torch.Tensor, axes: Sequence[NDArray[np.int64] | None], removed: RemovedSlices
) -> torch.Tensor | None:
    """Return a tensor's gradient without the slices, and note in ``removed`` what they were."""
    grad = tensor.grad if tensor.is_leaf else None
    if grad is None:
        return None
    left, removed.grad = cut_data(_dense(grad), axes)
    remember_gradient(removed.grad, left)
    return left


def remember_gradient(pieces: RemovedSlices, left: torch.Tensor) -> None:
    """Note that ``left`` is the gradient from which ``pieces`` were taken."""
    pieces.token = uuid.uuid4().hex
    _left[pieces.token] = left


def restored_gradient(
    tensor: torch.Tensor,
    axes: Sequence[NDArray[np.int64] | None],
    removed: Sequence[torch.Tensor | None] | None,
) -> torch.Tensor | None:
    """Return a tensor's gradient with the slices put back.

    A gradient that came after the cut says nothing about the removed slices: they get zeros. One
    that was cleared stays cleared.
    """
    grad = tensor.grad if tensor.is_leaf else None
    if grad is None:
        return None
    pieces = removed.grad if isinstance(removed, RemovedSlices) else None
    if pieces is not None and _left.get(pieces.token) is not grad:
        pieces = None
    return restore_data(_dense(grad), axes, pieces)


def set_zero_tensor(tensor: torch.Tensor, cut_dims: Axes) -> tuple[torch.Tensor, RemovedSlices]:
    """Set slices of ``tensor`` to zero in place; its shape and gradient stay.

    Returns the same tensor object and the values that were there.
    """
    axes = read_axes(cut_dims, tensor.shape)
    refuse_unsliceable(tensor)
    removed = RemovedSlices()
    removed.shape = tuple(tensor.shape)
    removed.order = memory_order(tensor)
    with torch.no_grad():
        data = tensor.detach()
        for axis, indices in enumerate(axes):
            if indices is None:
                removed.append(None)
                continue
            removed.append(_take(data, axis, indices))
            data.index_fill_(axis, _positions(indices, data), 0)
    return tensor, removed


def recovery_zero_tensor(
    tensor: torch.Tensor, cut_dims: Axes, param_list: Sequence[torch.Tensor | None] | None
) -> torch.Tensor:
    """Put back the values that :func:`set_zero_tensor` zeroed; ``param_list=None`` leaves zeros."""
    axes = read_axes(cut_dims, tensor.shape)
    if param_list is None:
        return tensor
    with torch.no_grad():
        data = tensor.detach()
        for axis in reversed(range(len(axes))):
            indices = axes[axis]
            if indices is None:
                continue
            piece = torch.as_tensor(param_list[axis]).to(data)
            data.index_copy_(axis, _positions(indices, data), piece)
    return tensor


def refuse_unsliceable(tensor: torch.Tensor, name: str = "the tensor") -> None:
    """Raise :class:`UnsupportedModuleError` for tensors that have no slices of their own."""
    if torch.nn.parameter.is_lazy(tensor):
        reason = "is not initialised yet: run the model once first"
    elif type(tensor).__name__ == "DTensor":
        reason = "is spread over several processes: cut the model before it is sharded"
    elif tensor.layout is not torch.strided:
        reason = f"has the layout {tensor.layout}: make it dense first"
    elif not tensor.is_leaf:
        reason = "is computed from other tensors: cut those"
    else:
        return
    raise UnsupportedModuleError(f"{name} {reason}", node=name)


def _dense(grad: torch.Tensor) -> torch.Tensor:
    return grad.detach().to_dense()
