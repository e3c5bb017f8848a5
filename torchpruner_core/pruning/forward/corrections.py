"""Correcting a literal in ``forward()`` as it runs, where a caller asks for it.

``x.view(b, t, 8, 64)`` with an 8 that no attribute holds cannot follow a cut, and is refused. With
``set_cut(..., correct_forward=True)`` the module's ``forward`` is wrapped instead: the call is
recognised by its place among the calls of its function, and its argument replaced. The code itself,
the class and the parameters stay; ``recovery_cut`` takes the wrapper off.

It may be assumed here that a forward makes its calls in one order, whatever the inputs. Not that they have
the sizes of the rehearsal: a call whose argument is not the one that was corrected (another batch, a longer
sequence) goes on as the code wrote it.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from torchpruner_core.pruning.forward.places import ArgumentPath

SIZES: ArgumentPath = ("sizes",)
SPLITTING = frozenset({"split", "split_with_sizes", "chunk", "tensor_split"})


def kind_of(function: str) -> str:
    """Return the name under which calls of a function are counted: a corrected ``chunk`` is a ``split``."""
    return "split" if function in SPLITTING else function


@dataclass(frozen=True)
class Correction:
    """One argument of one call: the ``nth`` of ``function``'s kind in a run of ``module``'s forward.

    ``guessed`` tells that others fit the shapes as well, so that only values can confirm it.
    """

    module: str
    function: str
    nth: int
    argument: ArgumentPath
    old: Any
    new: Any
    guessed: bool = field(default=False, repr=False, compare=False)

    def __str__(self) -> str:
        return (
            f"{self.module}.forward: {self.function}() number {self.nth}: {self.old} -> {self.new}"
        )


@dataclass(frozen=True)
class CorrectionNote:
    """What a context keeps of a corrected forward."""

    corrections: tuple[Correction, ...]


def _is_tracing() -> bool:
    return torch._C._get_tracing_state() is not None


def _is(value: Any, old: Any) -> bool:
    """Tell whether an argument is the number that it was; while a model is traced, sizes are tensors."""
    if isinstance(value, torch.Tensor) and _is_tracing():
        return type(old) is int and value.dim() == 0 and not value.is_meta and value.item() == old
    return type(value) is type(old) and bool(value == old)


def _replaced(value: Any, path: ArgumentPath, old: Any, new: Any) -> Any:
    if not path:
        return new if _is(value, old) else value
    step = path[0]
    if isinstance(value, slice):
        edges = {"start": value.start, "stop": value.stop}
        edges[step] = _replaced(edges[step], path[1:], old, new)
        return slice(edges["start"], edges["stop"], value.step)
    if isinstance(value, Mapping):
        return {**value, step: _replaced(value.get(step), path[1:], old, new)}
    if isinstance(value, np.ndarray):
        if step < value.size and value.flat[step] == old:
            value = value.copy()
            value.flat[step] = new
        return value
    if step >= len(value):
        return value
    entries = list(value)
    entries[step] = _replaced(entries[step], path[1:], old, new)
    return tuple(entries) if isinstance(value, tuple) else entries


class _Corrector(TorchFunctionMode):
    """Applies corrections to the calls of one run of a forward."""

    def __init__(self, corrections: Sequence[Correction]) -> None:
        super().__init__()
        self._seen: Counter[str] = Counter()
        self._corrections = corrections

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if _is_tracing() and _on_sizes(args):
            return func(*args, **(kwargs or {}))
        arguments: dict[str, Any] = {"args": args, "kwargs": kwargs or {}}
        name = kind_of(getattr(func, "__name__", str(func)))
        nth = self._seen[name]
        self._seen[name] += 1
        for correction in self._corrections:
            if kind_of(correction.function) == name and correction.nth == nth:
                if correction.argument == SIZES:
                    pieces = _split(args, arguments["kwargs"], correction.new)
                    if pieces is not None:
                        return pieces
                    continue
                if correction.argument[0] == "rest":
                    first = correction.argument[1]
                    rest = args[first:]
                    if len(rest) == len(correction.old) and all(map(_is, rest, correction.old)):
                        arguments["args"] = (*args[:first], *correction.new)
                    continue
                arguments = _replaced(
                    arguments, correction.argument, correction.old, correction.new
                )
        return func(*arguments["args"], **arguments["kwargs"])


def _on_sizes(args: Sequence[Any]) -> bool:
    """Tell whether a call only computes with whole numbers, which is no call where nothing is traced."""
    tensors = [value for value in args if isinstance(value, torch.Tensor)]
    whole = (t.dim() == 0 and not t.is_floating_point() and not t.is_complex() for t in tensors)
    return bool(tensors) and len(tensors) == len(args) - _plain(args) and all(whole)


def _plain(args: Sequence[Any]) -> int:
    return sum(isinstance(value, (bool, int, float, str, type(None))) for value in args)


def _split(args: Sequence[Any], kwargs: Mapping[str, Any], sizes: Sequence[int]) -> Any:
    tensor = args[0]
    dim = kwargs.get("dim", args[2] if len(args) > 2 else 0)
    if tensor.shape[dim] != sum(sizes):
        return None  # another input size than the cut was made for: the code's own split
    return torch.split(tensor, list(sizes), dim)


class CorrectedForward:
    """A module's ``forward`` with corrections: it stands in the module as its attribute ``forward``."""

    def __init__(self, module: nn.Module, corrections: Sequence[Correction]) -> None:
        before: Any = module.__dict__.get("forward")
        earlier: tuple[Correction, ...] = ()
        if isinstance(before, CorrectedForward):
            before, earlier = before.inner, before.corrections
        self.module = module
        self.inner: Any = before
        self.corrections = (*earlier, *corrections)

    def of(self, module: nn.Module) -> CorrectedForward:
        """Return the same corrections for a copy of the module."""
        other = copy.copy(self)
        other.module = module
        return other

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _Corrector(self.corrections):
            if self.inner is not None:
                return self.inner(*args, **kwargs)
            return type(self.module).forward(self.module, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<forward of {type(self.module).__name__} with {len(self.corrections)} corrections>"

    @property
    def __wrapped__(self) -> Any:  # inspect.signature shows the module's own arguments
        return self.inner or type(self.module).forward.__get__(self.module)


def correct(modules: Mapping[str, nn.Module], corrections: Sequence[Correction]) -> dict[str, Any]:
    """Return a corrected forward for each module that corrections name, under one of its names."""
    by_module: dict[str, list[Correction]] = {}
    first: dict[int, str] = {}
    for correction in corrections:
        name = first.setdefault(id(modules[correction.module]), correction.module)
        mine = by_module.setdefault(name, [])
        if not any(replace(correction, module=other.module) == other for other in mine):
            mine.append(correction)
    return {name: CorrectedForward(modules[name], mine) for name, mine in by_module.items()}
