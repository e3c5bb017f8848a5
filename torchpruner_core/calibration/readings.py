"""Which weight reads which tensor, seen from the run itself.

A model is run under a dispatch mode, below autograd and below every module, so a weight is seen where it
meets its input, be it in an ``nn.Linear``, in ``F.linear(x, self.w[:n])``, inside ``nn.MultiheadAttention``
or in an expert picked out of a stack. What the operator gets is a *view* of a parameter; its strides say
which of the parameter's axes are summed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from torchpruner_core.calibration.windows import Window
from torchpruner_core.pruning.tensors.targets import LocalModel

aten = torch.ops.aten

REMEMBERED = 4
"""How many of the tensors read last are kept, to see that the next weight reads the same one."""


@dataclass(frozen=True)
class Block:
    """A strided view of a parameter whose first axis is summed over.

    ``offset`` counts elements from the parameter's first; ``first`` is the feature of the tensor read that
    meets index 0 of the first axis.
    """

    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    first: int = 0

    @property
    def features(self) -> slice:
        """The features of the tensor read that this block meets."""
        return slice(self.first, self.first + self.sizes[0])

    @property
    def elements(self) -> int:
        """How many elements the view has."""
        return prod(self.sizes)

    def of(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return the view of ``parameter``, shape ``sizes``; writing to it writes to the parameter."""
        start = parameter.storage_offset() + self.offset
        return parameter.detach().as_strided(self.sizes, self.strides, start)

    def coordinates(self, parameter: torch.Tensor, dim: int) -> list[tuple[int, NDArray[np.int64]]]:
        """Return the parameter's axes that ``dim`` of the view walks along, with the index at each step."""
        size, stride = self.sizes[dim], self.strides[dim]
        steps = self.offset + stride * np.arange(size, dtype=np.int64)
        found = []
        for axis, (length, width) in enumerate(
            zip(parameter.shape, parameter.stride(), strict=True)
        ):
            if length > 1 and stride <= width < stride * size:
                found.append((axis, steps // width % length))
        return found


@dataclass(frozen=True)
class Reading:
    """One way in which a parameter is multiplied with a tensor of ``features`` features.

    ``bias`` is the name of the parameter that is added to the product, if there is one. A convolution
    with more than one tap has the ``window`` that it sees at once.
    """

    weight: str
    blocks: tuple[Block, ...]
    features: int
    bias: str | None = None
    window: Window | None = None


OnRead = Callable[[Reading, torch.Tensor], None]
"""Gets a reading and the tensor read, with its features last."""


class Watch(TorchDispatchMode):
    """Tells ``on_read`` of every product of one of a model's parameters before it is computed.

    ``otherwise`` maps a parameter's name to the operators that read it in any other way.
    """

    def __init__(self, model: nn.Module, on_read: OnRead) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on_read = on_read
        self.otherwise: dict[str, set[str]] = {}
        self.local = LocalModel(model)
        self._parameters: dict[int, list[tuple[str, torch.Tensor]]] = {}
        seen: set[int] = set()
        for name, tensor in self.local.tensors.items():
            if isinstance(tensor, nn.Parameter) and id(tensor) not in seen:
                seen.add(id(tensor))
                if tensor.layout is torch.strided and not nn.parameter.is_lazy(tensor):
                    self._parameters.setdefault(_storage(tensor), []).append((name, tensor))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        handler = _HANDLERS.get(func)
        handled = handler(self, args, kwargs or {}) if handler is not None else ()
        result = func(*args, **(kwargs or {}))
        if not _is_view(func):
            for value in tree_flatten((args, kwargs))[0]:
                if isinstance(value, torch.Tensor):
                    found = self.find(value)
                    if found is not None and found[0] not in handled:
                        self.otherwise.setdefault(found[0], set()).add(str(func))
        return result

    def find(self, view: torch.Tensor) -> tuple[str, torch.Tensor] | None:
        """Return the parameter whose memory ``view`` looks at."""
        if view.layout is not torch.strided or not self._parameters:
            return None
        for name, parameter in self._parameters.get(_storage(view), ()):
            start = parameter.storage_offset()
            if start <= view.storage_offset() < start + parameter.numel():
                return name, parameter
        return None

    def bias_of(self, weight: str, added: torch.Tensor | None) -> str | None:
        """Return the name of the parameter that is added to a product with ``weight``."""
        if added is not None:
            found = self.find(added)
            return found[0] if found is not None and found[1].numel() == added.numel() else None
        owner = self.local.owner(weight)
        if isinstance(owner, nn.Linear) and isinstance(owner.bias, nn.Parameter):
            return self.local.names[id(owner.bias)][0]  # added apart where the input is not dense
        return None

    def product(
        self, x: torch.Tensor, matrix: torch.Tensor, added: torch.Tensor | None
    ) -> Sequence[str]:
        """Note ``x @ matrix``, with ``matrix`` of the shape ``(features, out)`` a view of a parameter."""
        found = self.find(matrix)
        if found is None:
            return ()
        name, parameter = found
        block = Block(
            int(matrix.storage_offset() - parameter.storage_offset()),
            tuple(matrix.shape),
            tuple(matrix.stride()),
        )
        bias = self.bias_of(name, added)
        self.on_read(Reading(name, (block,), matrix.shape[0], bias), x)
        return (name,) if bias is None else (name, bias)


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


_views: dict[Any, bool] = {}


def _is_view(func: Any) -> bool:
    """Whether an operator only looks at its input in another shape."""
    known = _views.get(func)
    if known is None:
        returns = func._schema.returns
        known = bool(returns) and all(
            each.alias_info is not None and not each.alias_info.is_write for each in returns
        )
        _views[func] = known
    return known


def _mm(watch: Watch, args: tuple[Any, ...], kwargs: Any) -> Sequence[str]:
    left, right = args[:2]
    return (*watch.product(left, right, None), *watch.product(right.mT, left.mT, None))


def _addmm(watch: Watch, args: tuple[Any, ...], kwargs: Any) -> Sequence[str]:
    added, left, right = args[:3]
    return (*watch.product(left, right, added), *watch.product(right.mT, left.mT, added))


def _mv(watch: Watch, args: tuple[Any, ...], kwargs: Any) -> Sequence[str]:
    matrix, vector = args[:2]
    return watch.product(vector[None], matrix.mT, None)


def _addmv(watch: Watch, args: tuple[Any, ...], kwargs: Any) -> Sequence[str]:
    added, matrix, vector = args[:3]
    return watch.product(vector[None], matrix.mT, added)


def _bmm(watch: Watch, args: tuple[Any, ...], kwargs: Any) -> Sequence[str]:
    left, right = args[:2]
    return (*_stacked(watch, left, right), *_stacked(watch, right.mT, left.mT))


def _baddbmm(watch: Watch, args: tuple[Any, ...], kwargs: Any) -> Sequence[str]:
    return _bmm(watch, args[1:], kwargs)


def _stacked(watch: Watch, x: torch.Tensor, stack: torch.Tensor) -> Sequence[str]:
    if watch.find(stack) is None:
        return ()
    if stack.stride(0) == 0 or stack.shape[0] == 1:
        return watch.product(x, stack[0], None)
    return [
        name
        for each, matrix in zip(x, stack, strict=True)
        for name in watch.product(each, matrix, None)
    ]


def _each(values: Sequence[int], weight: torch.Tensor) -> tuple[int, ...]:
    """Return one number for each spatial axis of a kernel, where one may stand for all."""
    return tuple(values) * ((weight.dim() - 2) // len(values))


def _convolution(watch: Watch, args: tuple[Any, ...], kwargs: Any) -> Sequence[str]:
    x, weight, added, stride, padding, dilation, transposed, more, groups = args[:9]
    found = watch.find(weight)
    if found is None or weight.numel() != found[1].numel():
        return ()
    name, parameter = found
    batched = x.dim() == weight.dim()
    x = x.movedim(1 if batched else 0, -1)
    window = None
    if not transposed and prod(weight.shape[2:]) == 1 and not any(padding):
        spatial = [slice(None, None, step) for step in stride]
        x = x[(slice(None), *spatial)] if batched else x[tuple(spatial)]
    else:
        window = Window(
            tuple(weight.shape[2:]),
            _each(stride, weight),
            _each(padding, weight),
            _each(dilation, weight),
            _each(more, weight) if transposed else None,
        )
    summed = 0 if transposed else 1
    shape, strides = list(weight.shape), list(weight.stride())
    shape[0] //= groups
    sizes = (shape.pop(summed), *shape)
    step = shape[0] * strides[0] if summed else sizes[0] * strides[0]
    offset = int(weight.storage_offset() - parameter.storage_offset())
    strides = [strides.pop(summed), *strides]
    blocks = tuple(
        Block(offset + group * step, sizes, tuple(strides), group * sizes[0])
        for group in range(groups)
    )
    bias = watch.bias_of(name, added) if added is not None else None
    watch.on_read(Reading(name, blocks, x.shape[-1], bias, window), x)
    return (name,) if bias is None else (name, bias)


_HANDLERS: dict[Any, Callable[[Watch, tuple[Any, ...], Any], Sequence[str]]] = {
    aten.mm.default: _mm,
    aten.addmm.default: _addmm,
    aten.mv.default: _mv,
    aten.addmv.default: _addmv,
    aten.bmm.default: _bmm,
    aten.baddbmm.default: _baddbmm,
    aten.convolution.default: _convolution,
}


class Recent:
    """The tensors that were read last, so that one is recognised when the next weight reads it too."""

    def __init__(self) -> None:
        self._last: deque[tuple[torch.Tensor, tuple[Any, ...], Any]] = deque(maxlen=REMEMBERED)

    def get(self, tensor: torch.Tensor) -> Any:
        """Return what :meth:`put` noted with this tensor, or ``None``."""
        wanted = _identity(tensor)
        return next((note for _, known, note in self._last if known == wanted), None)

    def put(self, tensor: torch.Tensor, note: Any) -> None:
        """Note something with a tensor, which is kept alive so that its memory means nothing else."""
        self._last.append((tensor, _identity(tensor), note))

    def clear(self) -> None:
        self._last.clear()


def _identity(tensor: torch.Tensor) -> tuple[Any, ...]:
    version = 0 if tensor.is_inference() else tensor._version
    layout = sorted(
        (stride, size)
        for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
        if size > 1
    )
    dense = [] if tensor.is_contiguous() else layout
    return (_storage(tensor), tensor.storage_offset(), tensor.numel(), tuple(dense), version)
