"""What a cut leaves behind, so that it can be undone, and in which order cuts may be undone."""

from __future__ import annotations

import hashlib
import uuid
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from torchpruner_core.cut_dict import fingerprint
from torchpruner_core.cut_result import AxisCuts, CutResult
from torchpruner_core.errors import ContextMismatchError
from torchpruner_core.onnx_pruning.verification import Comparison
from torchpruner_core.pruning.tensors.journal import AttributeChange, get_attribute
from torchpruner_core.pruning.tensors.slices import RemovedSlices, axes_of_record
from torchpruner_core.pruning.tensors.targets import LocalModel


@dataclass
class TensorRecord:
    """The slices taken out of one tensor, and the shapes before and after."""

    removed: RemovedSlices
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass
class Repair:
    """The values of a tensor before a recovery gave it others, and the mark of those it got.

    A tensor that was trained since has another mark: it keeps what it has learnt.
    """

    before: torch.Tensor
    after: str

    @classmethod
    def of(cls, tensor: torch.Tensor, before: torch.Tensor, earlier: Repair | None) -> Repair:
        """Note a repair; one of a tensor that was repaired before goes back to the first values."""
        if earlier is not None and earlier.after == mark(before):
            before = earlier.before
        return cls(before, mark(tensor))


def mark(tensor: torch.Tensor) -> str:
    """Return a digest of a tensor's values, bit for bit."""
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(data.numpy().tobytes()).hexdigest()


@dataclass(repr=False)
class CutContext:
    """What ``set_cut`` or ``set_zero`` removed. Opaque; it can be pickled."""

    kind: str
    cut: str
    tensors: dict[str, TensorRecord] = field(default_factory=dict)
    attributes: list[AttributeChange] = field(default_factory=list)
    custom: dict[str, Any] = field(default_factory=dict)
    positions: dict[str, torch.Tensor] = field(default_factory=dict)
    """The entries that stayed of each tensor of positions, as they were."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    followed: dict[str, AxisCuts] = field(default_factory=dict)
    """What was cut along though the graph never read it, as ``terminal`` would list it."""
    verified: tuple[Comparison, ...] = ()
    """With ``verify=True``: how the pruned model compared, one entry a batch."""
    repairs: dict[str, Repair] = field(default_factory=dict)
    made: list[AttributeChange] = field(default_factory=list)
    """Attributes that the forward makes when it first runs, and had not made at the cut."""

    def axes(self, cut: CutResult) -> dict[str, list[NDArray[np.int64] | None]]:
        """Return what ``cut`` takes of each tensor's axes, by name, checked against their old sizes."""
        return {
            name: axes_of_record(cut.terminal[name], record.before, name)
            for name, record in self.tensors.items()
        }

    def __repr__(self) -> str:
        return (
            f"<{self.kind} context: {len(self.tensors)} tensors, {len(self.attributes)} attributes>"
        )


_applied: weakref.WeakKeyDictionary[nn.Module, list[CutContext]] = weakref.WeakKeyDictionary()
"""The contexts in force on each model of this process, oldest first.

Kept beside the models, since a cut leaves no attribute of its own on them. A model that was loaded
or copied is not in it: there the recorded shapes and attributes must do.
"""


_undone: weakref.WeakKeyDictionary[nn.Module, deque[str]] = weakref.WeakKeyDictionary()
"""The ids of the contexts that were last undone on each model, so that none is undone twice."""

REMEMBERED = 1000


def remember(root: nn.Module, context: CutContext) -> None:
    """Note that ``context`` is in force on ``root``."""
    _applied.setdefault(root, []).append(context)


def forget(root: nn.Module, context: CutContext) -> None:
    """Note that ``context`` is undone."""
    left = list(_applied.get(root, ()))
    position = _position(left, context)
    if position is not None:
        del left[position]
    _undone.setdefault(root, deque(maxlen=REMEMBERED)).append(context.id)
    if left:
        _applied[root] = left
    else:
        _applied.pop(root, None)


def _position(in_force: Sequence[CutContext], context: CutContext) -> int | None:
    """Return the place of a context among those in force on a model.

    One that was saved with a checkpoint stands for that of the same cut, made anew on a fresh model
    so that the checkpoint's weights fit it.
    """
    for matches in (
        lambda other: other.id == context.id,
        lambda other: (other.kind, other.cut) == (context.kind, context.cut),
    ):
        for position in reversed(range(len(in_force))):
            if matches(in_force[position]):
                return position
    return None


def _is_of_another(root: nn.Module, context: CutContext) -> bool:
    """Whether this very object, not a saved copy of it, is in force on another model."""
    return any(
        other is context
        for model, in_force in _applied.items()
        if model is not root
        for other in in_force
    )


def check_context(local: LocalModel, cut: CutResult, context: Any, kind: str) -> CutContext:
    """Return ``context`` if it can be undone now.

    Raises :class:`ContextMismatchError` where it is no context of this kind, of another cut, of
    another model, or where a later cut of the same tensors must be undone first.
    """
    if not isinstance(context, CutContext):
        raise ContextMismatchError(
            f"the third argument is the context that set_{kind} returned, not {type(context).__name__}",
            expected="CutContext",
            received=type(context).__name__,
        )
    if context.kind != kind:
        raise ContextMismatchError(
            f"this context came from set_{context.kind}: undo it with recovery_{context.kind}",
            expected=f"set_{kind}",
            received=f"set_{context.kind}",
        )
    if context.cut != fingerprint(cut):
        raise ContextMismatchError("the context was made by another cut than the one given")
    in_force = _applied.get(local.root)
    if in_force is not None:
        position = _position(in_force, context)
        undone = context.id in _undone.get(local.root, ())
        if position is None or undone or _is_of_another(local.root, context):
            raise ContextMismatchError(
                "the context is not in force on this model: it was undone already, or is of another model"
            )
        for later in reversed(in_force[position + 1 :]):
            shared = [name for name in later.tensors if name in context.tensors]
            if shared:
                raise ContextMismatchError(
                    f"a later set_{later.kind} changed {shared[0]} too: undo that one first",
                    node=shared[0],
                )
    for name, record in context.tensors.items():
        tensor = local.tensors.get(name)
        shape = None if tensor is None else tuple(tensor.shape)
        if shape != record.after:
            raise ContextMismatchError(
                f"{name} should have the shape {record.after} that the cut left, and "
                + ("is not there" if shape is None else f"has {shape}")
                + ": the context is of another model, was undone already, or a later cut comes first",
                node=name,
                expected=list(record.after),
                received=None if shape is None else list(shape),
            )
    for change in context.attributes:
        module = local.modules.get(change.module)
        owner: Any = module
        for step in change.path[:-1]:
            owner = getattr(owner, step, None)
        if owner is None:
            raise ContextMismatchError(f"the model has no {change.module}.{'.'.join(change.path)}")
        value = get_attribute(owner, change.path[-1])
        if isinstance(change.new, (int, str, tuple)) and _differs(value, change.new):
            raise ContextMismatchError(
                f"{change.module}.{'.'.join(change.path)} should be {change.new}, as the cut left it, "
                f"and is {value}: was it changed since, or does a later cut come first?",
                module=change.module,
                expected=change.new,
                received=value,
            )
    return context


def _differs(value: Any, other: Any) -> bool:
    try:
        return bool(value != other)
    except (RuntimeError, ValueError):
        return False  # a tuple of arrays, which no one number stands for


def context_in_force(root: nn.Module, cut: str) -> CutContext | None:
    """Return the newest context of the cut with that fingerprint that ``set_cut`` applied to ``root``."""
    found = [c for c in _applied.get(root, ()) if c.kind == "cut" and c.cut == cut]
    return found[-1] if found else None


def followed_along(root: nn.Module, cut: str) -> dict[str, AxisCuts]:
    """Return what ``set_cut`` cut along on ``root`` with the cut of that fingerprint."""
    for context in reversed(_applied.get(root, ())):
        if (context.kind, context.cut) == ("cut", cut):
            return context.followed
    return {}


def is_in_force(root: nn.Module, cut: str) -> bool:
    """Tell whether ``set_cut`` has applied the cut with that fingerprint to ``root``."""
    return context_in_force(root, cut) is not None
