"""Cutting an optimizer's state along with its parameters, and putting it back.

The state is found by the ``Parameter`` object, which a cut keeps. Every tensor in it is matched with
its parameter's axes by shape, so no optimizer is named here but one: L-BFGS, whose state is one flat
vector over all parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from torchpruner_core.cut_dict import Cut, fingerprint, read_module_cut
from torchpruner_core.cut_result import AxisCuts, CutResult
from torchpruner_core.errors import ContextMismatchError, OptimizerStateError
from torchpruner_core.exporting.unwrapping import unwrap
from torchpruner_core.pruning.context import followed_along, is_in_force
from torchpruner_core.pruning.tensors import slices
from torchpruner_core.pruning.tensors.slices import RemovedSlices
from torchpruner_core.pruning.tensors.targets import LocalModel, in_mode_of_model

OptimizerT = TypeVar("OptimizerT", bound=torch.optim.Optimizer)
Axes = list["NDArray[np.int64] | None"]
Path = tuple[Any, ...]
"""Where a tensor lies in a parameter's state: ``('exp_avg',)``, ``('old_dirs', 3)``."""

FLAT_OWNER = ""
"""The name under which the state over all parameters is kept."""


@dataclass
class StateRecord:
    """What was removed from one state tensor, seen with ``before`` as its shape."""

    removed: RemovedSlices
    before: tuple[int, ...]


@dataclass(repr=False)
class OptimizerContext:
    """What ``set_cut_optimizer`` removed. Opaque; it can be pickled.

    ``shapes`` are those of the parameters before the cut.
    """

    cut: str
    optimizer: str
    state: dict[str, dict[Path, StateRecord]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    followed: dict[str, AxisCuts] = field(default_factory=dict)
    applied: bool = True

    def __repr__(self) -> str:
        count = sum(map(len, self.state.values()))
        return f"<{self.optimizer} context: {count} state tensors>"


@dataclass
class _Tracked:
    """A parameter that is cut: its axes, and its shapes before and after."""

    name: str
    parameter: torch.Tensor
    axes: Axes
    before: tuple[int, ...]

    @property
    def after(self) -> tuple[int, ...]:
        return slices.shape_after(self.before, self.axes)


@in_mode_of_model
def set_cut_optimizer(
    model: nn.Module, optimizer: OptimizerT, cut_dict: Cut
) -> tuple[OptimizerT, OptimizerContext]:
    """Remove from an optimizer's state the slices that ``set_cut`` removes from its parameters.

    Every state tensor follows: those of the parameter's shape (momenta, second moments), those of
    its rows or columns (factored statistics), and L-BFGS's flat history. What is left of each trains
    on as if nothing had happened. Call it after :func:`set_cut`, with the same cut.

    Returns the same optimizer and the context that :func:`recovery_optimizer` needs. Raises
    :class:`OptimizerStateError` for a state tensor that cannot be matched; nothing is changed then.
    """
    cut = read_module_cut(cut_dict)
    local = LocalModel(unwrap(model))
    followed = followed_along(local.root, fingerprint(cut))
    tracked = _tracked(local, optimizer, cut, cut.shapes, followed)
    context = OptimizerContext(fingerprint(cut), type(optimizer).__name__, followed=followed)
    context.shapes = {entry.name: entry.before for entry in tracked}
    writes: list[Callable[[], None]] = []
    for entry in tracked:
        for path, tensor, write in _state_tensors(optimizer, entry.parameter):
            axes, shape = _match(entry, path, tensor, entry.before)
            if axes is None:
                continue
            data, removed = slices.cut_data(tensor.detach().reshape(shape), axes)
            if tensor.dim() != len(shape):
                data = data.reshape(-1)
            context.state.setdefault(entry.name, {})[path] = StateRecord(removed, shape)
            writes.append(_later(write, data))
    if _is_flat(optimizer):
        _cut_flat(optimizer, tracked, context, writes)
    for apply in writes:
        apply()
    return optimizer, context


@in_mode_of_model
def recovery_optimizer(
    model: nn.Module, optimizer: OptimizerT, cut_dict: Cut, param_context: OptimizerContext
) -> OptimizerT:
    """Undo :func:`set_cut_optimizer`: the removed state comes back bit for bit.

    What stayed keeps its present values. State that came after the cut grows to the parameter's
    full shape with the value such state starts from. May be called before or after
    :func:`recovery_cut`. Returns the same optimizer. Raises :class:`ContextMismatchError`.
    """
    cut = read_module_cut(cut_dict)
    _check(optimizer, cut, param_context)
    local = LocalModel(unwrap(model))
    tracked = _tracked(local, optimizer, cut, param_context.shapes, param_context.followed)
    writes: list[Callable[[], None]] = []
    for entry in tracked:
        records = param_context.state.get(entry.name, {})
        for path, tensor, write in _state_tensors(optimizer, entry.parameter):
            record = records.get(path)
            if record is None:
                axes, shape = _match(entry, path, tensor, entry.after, entry.before)
            else:
                axes, _ = _match(entry, path, _Shape(record.before), entry.before)
                shape = slices.shape_after(record.before, axes) if axes else record.before
            if axes is None:
                continue
            if prod(shape) != tensor.numel():
                raise ContextMismatchError(
                    f"the state {path} of {entry.name} should have the shape {shape} that the cut left, "
                    f"and has {tuple(tensor.shape)}",
                    node=entry.name,
                    expected=list(shape),
                    received=list(tensor.shape),
                )
            removed = None if record is None else record.removed
            fill = _initial(optimizer, entry.parameter, path)
            data = slices.restore_data(tensor.detach().reshape(shape), axes, removed, fill)
            writes.append(_later(write, data if tensor.dim() == len(shape) else data.reshape(-1)))
    if _is_flat(optimizer):
        _restore_flat(optimizer, tracked, param_context, writes)
    for restore in writes:
        restore()
    param_context.applied = False
    return optimizer


def _later(write: Callable[[torch.Tensor], None], data: torch.Tensor) -> Callable[[], None]:
    return lambda: write(data)


def _check(optimizer: torch.optim.Optimizer, cut: CutResult, context: Any) -> None:
    if not isinstance(context, OptimizerContext):
        raise ContextMismatchError(
            "the fourth argument is the context that set_cut_optimizer returned, not "
            f"{type(context).__name__}",
            expected="OptimizerContext",
            received=type(context).__name__,
        )
    if context.cut != fingerprint(cut) or context.optimizer != type(optimizer).__name__:
        raise ContextMismatchError(
            f"the context was made by another cut or for another optimizer ({context.optimizer})"
        )
    if not context.applied:
        raise ContextMismatchError("the optimizer's state was put back with this context already")


def _tracked(
    local: LocalModel,
    optimizer: torch.optim.Optimizer,
    cut: CutResult,
    shapes: Mapping[str, tuple[int, ...]],
    followed: Mapping[str, AxisCuts],
) -> list[_Tracked]:
    """Return the optimizer's parameters that are cut; ``shapes`` are theirs before, where known."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise OptimizerStateError(
            f"the optimizer is a torch.optim.Optimizer, not {type(optimizer).__name__}; give the one "
            "that a wrapper holds",
            expected="torch.optim.Optimizer",
            received=type(optimizer).__name__,
        )
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not known & local.names.keys():
        raise OptimizerStateError(
            f"this {type(optimizer).__name__} optimizes no parameter of this model: was it made for "
            "another model, or for a copy?"
        )
    found: dict[int, _Tracked] = {}
    for name, cut_dims in {**cut.terminal, **followed}.items():
        parameter = local.tensors.get(name)
        if parameter is None or id(parameter) not in known or id(parameter) in found:
            continue
        counts = [0 if axis is None else len(axis) for axis in cut_dims]
        if not any(counts):
            continue
        now = tuple(parameter.shape)
        grown = tuple(size + count for size, count in zip(now, counts, strict=True))
        if name in shapes:
            before = tuple(shapes[name])
        elif is_in_force(local.root, fingerprint(cut)):
            before = grown
        else:
            found_shapes = [tuple(t.shape) for _, t, _ in _state_tensors(optimizer, parameter)]
            before = now if now in found_shapes and grown not in found_shapes else grown
        axes = slices.read_axes(cut_dims, before, name)
        entry = _Tracked(name, parameter, axes, before)
        if now not in (before, entry.after):
            raise OptimizerStateError(
                f"{name} has the shape {now}, and the cut takes {before} to {entry.after}: was the model "
                "cut with this result?",
                node=name,
                expected=list(entry.after),
                received=list(now),
            )
        found[id(parameter)] = entry
    return list(found.values())


def _state_tensors(
    optimizer: torch.optim.Optimizer, parameter: torch.Tensor
) -> Iterator[tuple[Path, torch.Tensor, Callable[[torch.Tensor], None]]]:
    """Yield the tensors in a parameter's state, also in lists and dicts, each with its place."""
    if _is_flat(optimizer):
        return
    if parameter in optimizer.state:
        yield from _walk((), optimizer.state[parameter])


def _walk(
    path: Path, container: Any
) -> Iterator[tuple[Path, torch.Tensor, Callable[[torch.Tensor], None]]]:
    items = container.items() if isinstance(container, dict) else enumerate(container)
    for key, value in list(items):
        if isinstance(value, torch.Tensor):
            yield (*path, key), value, _writer(container, key)
        elif isinstance(value, (dict, list)):
            yield from _walk((*path, key), value)


def _writer(container: Any, key: Any) -> Callable[[torch.Tensor], None]:
    def write(value: torch.Tensor) -> None:
        container[key] = value

    return write


@dataclass
class _Shape:
    """A shape in the place of a tensor, where only the shape matters."""

    shape: tuple[int, ...]

    def dim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return prod(self.shape)


def _match(
    entry: _Tracked,
    path: Path,
    tensor: torch.Tensor | _Shape,
    sizes: tuple[int, ...],
    other: tuple[int, ...] | None = None,
) -> tuple[Axes | None, tuple[int, ...]]:
    """Return which indices leave which axis of a state tensor, and the shape to see it in.

    ``sizes`` is the parameter's shape that the tensor was made for. ``(None, shape)`` where nothing
    leaves it: a step counter, or a tensor of the shape ``other`` that has followed already.
    """
    shape = tuple(tensor.shape)
    if tensor.numel() == 1 and prod(sizes) != 1:
        return None, shape
    gone = slices.shape_after(entry.before, entry.axes) if sizes == entry.before else entry.before
    if len(shape) == len(sizes):
        if all(size in (full, 1) for size, full in zip(shape, sizes, strict=True)):
            axes = [a if s == f else None for a, s, f in zip(entry.axes, shape, sizes, strict=True)]
            return (axes if any(a is not None for a in axes) else None), shape
        if shape in (gone, other):
            return None, shape
    if len(shape) < len(sizes):
        keeps = [
            kept
            for kept in itertools.combinations(range(len(sizes)), len(shape))
            if shape == tuple(sizes[axis] for axis in kept)
        ]
        last = len(sizes) - 1
        named = str(path[-1]).lower()
        for word, dropped in (("row", last), ("col", last - 1)):
            preferred = tuple(axis for axis in range(len(sizes)) if axis != dropped)
            if word in named and preferred in keeps:
                keeps = [preferred]
        choices: list[Axes] = []
        for kept in keeps:
            axes = [entry.axes[axis] for axis in kept]
            if not any(_same(axes, choice) for choice in choices):
                choices.append(axes)
        if len(choices) == 1:
            return (choices[0] if any(a is not None for a in choices[0]) else None), shape
        if not choices and len(shape) == 1 and shape[0] == prod(sizes):
            return list(entry.axes), sizes
        if not choices and len(shape) == 1 and shape[0] == prod(gone):
            return None, shape
    raise OptimizerStateError(
        f"the optimizer's state {'.'.join(map(str, path))!r} of {entry.name} has the shape {shape}, which "
        f"does not tell its axes in a parameter of shape {sizes}: drop that state (optimizer.state) and let "
        "it start anew, or cut it by hand",
        node=entry.name,
        state=str(path[-1]),
        expected=list(sizes),
        received=list(shape),
    )


def _same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return all(
        (x is None) == (y is None) and (x is None or np.array_equal(x, y))
        for x, y in zip(a, b, strict=True)
    )


def _initial(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, path: Path) -> float:
    """Return the value from which a state starts, where that is not zero."""
    for group in optimizer.param_groups:
        if any(p is parameter for p in group["params"]):
            if path[-1] == "step_size":  # Rprop: each entry's own step starts at the learning rate
                return float(group["lr"])
            if path[-1] == "sum":
                return float(group.get("initial_accumulator_value", 0.0))
    return 0.0


def _is_flat(optimizer: torch.optim.Optimizer) -> bool:
    return isinstance(optimizer, torch.optim.LBFGS)


def _flat_axes(optimizer: Any, tracked: list[_Tracked]) -> tuple[Axes, int]:
    """Return the indices that leave L-BFGS's flat vectors, and those vectors' length before."""
    by_id = {id(entry.parameter): entry for entry in tracked}
    gone, offset = [], 0
    for parameter in optimizer._params:
        entry = by_id.get(id(parameter))
        size = parameter.numel() if entry is None else prod(entry.before)
        if entry is not None:
            mask = np.zeros(entry.before, dtype=bool)
            for axis, indices in enumerate(entry.axes):
                if indices is not None:
                    mask[(slice(None),) * axis + (indices,)] = True
            gone.append(offset + np.flatnonzero(mask.reshape(-1)))
        offset += size
    return [np.concatenate(gone) if gone else np.empty(0, np.int64)], offset


def _flat_state(optimizer: Any) -> Iterator[tuple[Path, torch.Tensor, Any]]:
    first = optimizer._params[0]
    if first in optimizer.state:
        yield from _walk((), optimizer.state[first])


def _cut_flat(
    optimizer: Any,
    tracked: list[_Tracked],
    context: OptimizerContext,
    writes: list[Callable[[], None]],
) -> None:
    axes, length = _flat_axes(optimizer, tracked)
    for path, tensor, write in _flat_state(optimizer):
        if tensor.dim() == 1 and tensor.numel() == length:
            data, removed = slices.cut_data(tensor.detach(), axes)
            context.state.setdefault(FLAT_OWNER, {})[path] = StateRecord(removed, (length,))
            writes.append(_later(write, data))
    writes.append(lambda: setattr(optimizer, "_numel_cache", None))


def _restore_flat(
    optimizer: Any,
    tracked: list[_Tracked],
    context: OptimizerContext,
    writes: list[Callable[[], None]],
) -> None:
    axes, length = _flat_axes(optimizer, tracked)
    records = context.state.get(FLAT_OWNER, {})
    after = length - len(axes[0]) if axes[0] is not None else length
    for path, tensor, write in _flat_state(optimizer):
        if tensor.dim() == 1 and tensor.numel() == after and after > 1:
            record = records.get(path)
            removed = None if record is None else record.removed
            writes.append(_later(write, slices.restore_data(tensor.detach(), axes, removed)))
    writes.append(lambda: setattr(optimizer, "_numel_cache", None))
