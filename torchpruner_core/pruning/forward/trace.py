"""Recording what a ``forward()`` does, call by call, with the shapes that came out.

The calls are those that Python code makes (``Tensor.view``, ``F.linear``), since that is where
literals live; what a function does inside PyTorch is not seen.

It may be assumed here that a call is known by its module, its function and how many calls of that function
the module made before, and that shapes and plain numbers say all that a comparison needs: no value is kept.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.overrides import TorchFunctionMode

from torchpruner_core.capture.meta_shapes import without_values
from torchpruner_core.pruning.forward.arithmetic import numbers, scalars
from torchpruner_core.pruning.forward.boundaries import flatten_outputs
from torchpruner_core.pruning.forward.corrections import kind_of
from torchpruner_core.pruning.forward.origin import Origin, origin_of
from torchpruner_core.pruning.forward.places import ArgumentPath, Place, place_of

WRITE = "__setitem__"
"""A call that returns nothing; the shape it is known by is that of what it writes into."""

FEW = 64
"""A tensor of more numbers than this is data, which no size was written into."""


@dataclass(frozen=True)
class Call:
    """One function call: where, which, the numbers among its arguments, and the shapes it gave.

    ``nth`` counts the calls of that function's kind since the module's forward began, those of modules
    below it included.
    """

    module: str
    function: str
    nth: int
    numbers: tuple[tuple[ArgumentPath, Any], ...]
    scalars: tuple[float, ...]
    place: Place | None = None
    operands: tuple[tuple[int, ...], ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def integers(self) -> tuple[int, ...]:
        """The integers among its arguments."""
        return tuple(value for _, value in self.numbers if type(value) is int)


class Trace(TorchFunctionMode):
    """A running record; ``failed`` is the innermost module that ran when an exception came.

    ``origin`` is where in the model's own code that was.

    ``watch`` is told of each call, and may stop the run by raising. ``without_values`` tells that the
    model and its inputs have none.
    """

    def __init__(
        self, watch: Callable[[Call], None] | None = None, without_values: bool = False
    ) -> None:
        super().__init__()
        self.watch = watch
        self.without_values = without_values
        self.calls: list[Call] = []
        self.stack: list[tuple[str, Counter[str]]] = [("self", Counter())]
        self.pending: Call | None = None
        self.failed: str | None = None
        self.error: Exception | None = None
        self.origin: Origin | None = None
        self.outputs: list[tuple[int, ...]] = []

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        module, seen = self.stack[-1]
        kind = kind_of(name)
        call = Call(
            module,
            name,
            seen[kind],
            (*numbers(args, kwargs), *(_values(args) if self.without_values else ())),
            scalars(name, args, kwargs),
            place_of(name, args, kwargs),
            tuple(tuple(x.shape) for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)),
        )
        for _, counter in self.stack:
            counter[kind] += 1
        self.pending = call
        result = (without_values(func) if self.without_values else func)(*args, **kwargs)
        self.pending = None
        shapes = tuple(tuple(x.shape) for x in _tensors(args[0] if name == WRITE else result))
        if shapes and name != "__get__":
            self.calls.append(replace(call, shapes=shapes))
            if self.watch is not None:
                self.watch(self.calls[-1])
        return result

    @property
    def last_call(self) -> Call | None:
        """The call that raised, or the last one that succeeded."""
        return self.pending or (self.calls[-1] if self.calls else None)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [x for x in value if isinstance(x, torch.Tensor)]
    return []


def _values(args: Sequence[Any]) -> Iterator[tuple[ArgumentPath, float]]:
    """Yield the few numbers of tensors with values, where the others have none: made out of sight."""
    for i, tensor in enumerate(args):
        value = tensor.constant if isinstance(tensor, FakeTensor) else tensor
        if isinstance(value, torch.Tensor) and not value.is_meta and value.numel() <= FEW:
            with unset_fake_temporarily():
                entries = value.detach().flatten().tolist()
            yield from ((("values", i, k), entry) for k, entry in enumerate(entries))


@contextmanager
def _module_stack(model: nn.Module, trace: Trace) -> Iterator[None]:
    handles = []

    def enter(name: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            trace.stack.append((name, Counter()))

        return hook

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        if sys.exc_info()[0] is not None and trace.failed is None:
            trace.failed = trace.stack[-1][0]
        trace.stack.pop()

    for path, module in model.named_modules():
        name = f"self.{path}" if path else "self"
        handles.append(module.register_forward_pre_hook(enter(name)))
        handles.append(module.register_forward_hook(leave, always_call=True, prepend=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def record(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    device: str,
    watch: Callable[[Call], None] | None = None,
    without_values: bool = False,
) -> Trace:
    """Run ``model`` without gradients and return what it did; an exception ends up in ``error``."""
    trace = Trace(watch, without_values)
    with torch.no_grad(), _module_stack(model, trace), torch.device(device):
        try:
            with trace:
                result = model(*args, **kwargs)
            trace.outputs = [tuple(x.shape) for x in flatten_outputs(result)]
        except Exception as error:
            trace.error = error
            trace.failed = trace.failed or trace.stack[-1][0]
            trace.origin = origin_of(error, model)
    return trace
