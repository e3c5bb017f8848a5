"""The sums that products go into: residual streams, where the errors of all products before add up.

What a product's weight can mend is not only its own output but the whole sum, the other summand's error
with it. Between product and sum there may be views and operators that scale each channel by itself: batch
norms in evaluation, layer scales, biases added apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from torchpruner_core.calibration.readings import OnRead, Reading, Watch

aten = torch.ops.aten

ADDITIONS = frozenset({aten.add.Tensor, aten.add_.Tensor})
LINEAR = frozenset({aten.mm.default, aten.addmm.default})
NORMS = frozenset(
    {
        aten.native_batch_norm.default,
        aten.cudnn_batch_norm.default,
        aten.miopen_batch_norm.default,
    }
)
"""Batch norms whose sixth argument says whether they train."""

REMEMBERED = 4
"""How many outputs are kept, to see that a sum reads one; a sum follows its summands soon."""


@dataclass(frozen=True, eq=False)
class Link:
    """An operator between a product and a sum, or the product itself, which has no link ``before``.

    ``read`` is what it reads of the link before, ``scale`` what it multiplies that with, of the same shape
    when expanded.
    """

    call: Callable[[], torch.Tensor]
    result: torch.Tensor
    reading: Reading
    channel: int
    before: Link | None = None
    read: torch.Tensor | None = None
    scale: torch.Tensor | None = None

    def again(self) -> None:
        """Compute it anew, the links before it first, and put the results in the old ones' place."""
        if self.before is not None:
            self.before.again()
        self.result.copy_(self.call())

    def rows(self, view: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return ``values``, one for each element of ``view`` of the result, as rows of the product.

        Shape ``(positions, outputs)``.
        """
        base = self.result
        found = torch.empty_strided(
            base.shape, base.stride(), dtype=values.dtype, device=values.device
        )
        offset = view.storage_offset() - base.storage_offset()
        found.as_strided(view.shape, view.stride(), offset).copy_(values)
        if self.before is not None:
            assert self.read is not None
            return self.before.rows(self.read, found)
        found = found.movedim(self.channel, -1)
        return found.reshape(-1, found.shape[-1])

    def scales(self) -> torch.Tensor | None:
        """Return what the links multiply each of the product's outputs with, ``None`` for nothing."""
        if self.before is None:
            return None
        assert self.read is not None
        found = self.before.scales()
        if self.scale is None:
            return found
        own = self.before.rows(self.read, self.scale.expand_as(self.read))[0]
        return own if found is None else own * found


OnSum = Callable[[Link, torch.Tensor, torch.Tensor], None]
"""Gets the last link, the summand that is a view of its result, and the sum, before others see it."""


class SumWatch(Watch):
    """A watch that tells of sums too; ``on_sum`` may write to weights and have links computed again."""

    def __init__(self, model: torch.nn.Module, on_read: OnRead, on_sum: OnSum) -> None:
        super().__init__(model, self._noted)
        self._tell, self._on_sum = on_read, on_sum
        self._readings: list[Reading] = []
        self._links: deque[Link] = deque(maxlen=REMEMBERED)

    def _noted(self, reading: Reading, tensor: torch.Tensor) -> None:
        self._readings.append(reading)
        self._tell(reading, tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in ADDITIONS and not kwargs:
            self._sum(*args)
        self._readings.clear()
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if func._schema.is_mutable:
            self._forget(func, args)
        elif isinstance(first := result[0] if isinstance(result, tuple) else result, torch.Tensor):
            link = self._linked(func, args, kwargs or {}, first)
            if link is not None and _dense(first):
                self._links.append(link)
        return result

    def _sum(self, left: Any, right: Any) -> None:
        summands = [x for x in (left, right) if isinstance(x, torch.Tensor)]
        if len(summands) < 2 or left.shape != right.shape or self.find(left) or self.find(right):
            return
        # The product computed last sees the other summand as it will be.
        for link in reversed(self._links):
            for summand in summands:
                if _within(summand, link.result):
                    self._on_sum(link, summand, left + right)
                    return

    def _linked(self, func: Any, args: tuple[Any, ...], kwargs: Any, out: Any) -> Link | None:
        if self._readings:
            (reading,) = set(self._readings) if len(set(self._readings)) == 1 else (None,)
            if reading is None or (func in LINEAR and self.find(args[-1]) is None):
                return None
            if func in LINEAR:
                return Link(lambda: func(*args, **kwargs), out, reading, -1)
            if func is aten.convolution.default:
                channel = 1 if args[0].dim() == args[1].dim() else 0
                return Link(lambda: func(*args, **kwargs), out, reading, channel)
            return None
        if func in NORMS and not args[5]:
            return self._through(args[0], _norm_scale(args), lambda: func(*args)[0], out)
        if func in (aten.mul.Tensor, aten.add.Tensor) and not kwargs:
            for value, other in (args[:2], args[1::-1]):
                constant = not isinstance(other, torch.Tensor) or self.find(other) is not None
                if isinstance(value, torch.Tensor) and constant and out.shape == value.shape:
                    scale = None
                    if func is aten.mul.Tensor:
                        scale = torch.as_tensor(other, device=value.device).float()
                    return self._through(value, scale, lambda: func(*args), out)
        return None

    def _through(
        self, read: torch.Tensor, scale: torch.Tensor | None, call: Any, out: torch.Tensor
    ) -> Link | None:
        for link in reversed(self._links):
            if _within(read, link.result):
                return Link(call, out, link.reading, link.channel, link, read, scale)
        return None

    def _forget(self, func: Any, args: tuple[Any, ...]) -> None:
        """Let go of what an operator wrote over."""
        written = [
            value
            for value, argument in zip(args, func._schema.arguments, strict=False)
            if argument.alias_info is not None and isinstance(value, torch.Tensor)
        ]
        kept = [x for x in self._links if not any(_same(each, x.result) for each in written)]
        self._links = deque(kept, maxlen=REMEMBERED)


def _norm_scale(args: tuple[Any, ...]) -> torch.Tensor:
    x, weight, _, _, variance, _, _, epsilon = args[:8]
    scale: torch.Tensor = (variance + epsilon).rsqrt()
    scale = (scale if weight is None else scale * weight).float()
    return scale.view(1, -1, *[1] * (x.dim() - 2))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return int(one.untyped_storage()._cdata) == int(other.untyped_storage()._cdata)


def _within(view: torch.Tensor, whole: torch.Tensor) -> bool:
    """Whether a view has all elements of a tensor, each once."""
    return _same(view, whole) and view.numel() == whole.numel() and _dense(view)


def _dense(tensor: torch.Tensor) -> bool:
    layout = sorted(
        (stride, size)
        for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
        if size > 1
    )
    expected = 1
    for stride, size in layout:
        if stride != expected:
            return False
        expected *= size
    return True
