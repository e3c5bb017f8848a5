"""Running the pruned ``forward()`` before the model is pruned.

The model's structure is copied with empty tensors on the ``meta`` device (shapes, no values), once
with the shapes it has and once with those it will have. The copies are run, and every call of the
second run is compared with the first: a shape must be the old one, or differ by what the cut
removes somewhere. That catches what an output's shape hides: ``view(b, t, 8, -1)`` runs happily with
seven heads' worth of features, as eight thinner heads.

A model that cannot run on ``meta`` runs on the fake tensors of ``torch.compile``, and one that looks at
values on real ones.

It may be assumed here that the same code makes the same calls in the same order in both runs, up to the
first call whose shapes or numbers differ in a way the cut does not explain; what comes after that call says
nothing. It may not be assumed that the model tolerates being run: the copies are run, never the model.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from torchpruner_core.cut_dict import operator_owner
from torchpruner_core.cut_result import CutResult, TensorSpec
from torchpruner_core.pruning.change_list import Plan, has_own_rule
from torchpruner_core.pruning.forward.allowed import Allowed, Vector, fits, shrinkage
from torchpruner_core.pruning.forward.arithmetic import CREATING, SHAPING, SIZED
from torchpruner_core.pruning.forward.boundaries import (
    cut_inputs,
)
from torchpruner_core.pruning.forward.corrections import (
    SPLITTING,
    CorrectedForward,
    Correction,
    correct,
    kind_of,
)
from torchpruner_core.pruning.forward.lazily import empties, held_by, made_since
from torchpruner_core.pruning.forward.module_copy import copied
from torchpruner_core.pruning.forward.origin import Origin
from torchpruner_core.pruning.forward.trace import Call, Trace, record
from torchpruner_core.pruning.tensors import slices
from torchpruner_core.pruning.tensors.journal import AttributeChange, put_attribute
from torchpruner_core.pruning.tensors.positions import Positions
from torchpruner_core.pruning.tensors.targets import own_tensors
from torchpruner_core.untouched import held_tensors, tables_untouched

DEVICES = ("meta", "fake", "cpu")
"""Where to rehearse, the first on which the model runs: shapes alone; shapes that say they are on a
CPU and know small constants, as when a model is compiled; real values, on whatever device they are."""

EXPANDING = frozenset({"expand", "expand_as", "broadcast_to"})
"""Functions that repeat one slice to the length that they are told."""


@dataclass(frozen=True)
class Outcome:
    """How far a rehearsal agrees with the cut.

    ``position`` is the number of calls before the first disagreement, ``module`` where that is,
    ``call`` what was called there before the cut, ``failing`` what is called there now, and
    ``unexplained`` the number of shapes that changed in no way the cut knows of. ``diverged`` tells that
    the forward takes another path there, after which shapes cannot be compared, and
    ``computes_otherwise`` that a number in a computation is another one. ``suspects`` are
    earlier calls, before and now, whose shape stayed though the cut shortens tensors of that shape.
    ``places`` are calls, before and now, that mean a part of a tensor which the cut shortens.
    ``moved`` tells that one of them means another part by itself. ``counted`` are calls, before and
    now, with other numbers that may be part of what is computed.
    ``calls`` are all that a good rehearsal made, and ``origin`` is the line of the model that made the
    call at which a bad one stopped.
    """

    good: bool
    position: int
    module: str = "self"
    call: Call | None = None
    failing: Call | None = None
    reason: str = ""
    unexplained: int = 0
    diverged: bool = False
    computes_otherwise: bool = False
    suspects: tuple[tuple[Call, Call], ...] = ()
    places: tuple[tuple[Call, Call], ...] = ()
    moved: bool = False
    counted: tuple[tuple[Call, Call], ...] = ()
    calls: tuple[Call, ...] = ()
    origin: Origin | None = None


class Stage:
    """A model's shadow before the cut, run once, and the ground to rehearse the cut on."""

    def __init__(self, root: nn.Module, plan: Plan, inputs: Any = None) -> None:
        self.root, self.plan, self.cut = root, plan, plan.cut
        self.allowed = Allowed(plan.cut, plan.literals)
        self.owners = {operator_owner(name)[0] for name in plan.untaken}
        # What a layer with a pruner does inside is its pruner's business, and may change with it.
        self.inside = {
            name for name, module in plan.local.modules.items() if has_own_rule(type(module))
        }
        self.failure = ""
        self.failed_with_values = ""
        """What the last pruned forward on values raised, if it did."""
        self.device = DEVICES[0]
        tensors = [tensor for module in root.modules() for _, tensor in own_tensors(module)]
        self.home = next((t.device for t in tensors if not t.is_meta), torch.device("cpu"))
        """Where the model's values are, and its code may count on them to be."""
        self._fake = FakeTensorMode()
        self.attempts = 0
        self._given = inputs
        self.before: Trace = Trace()
        self.everything: list[Call] = []
        self._doubles: dict[Any, torch.Tensor] = {}
        self._computed = [tensor for tensor in held_tensors(root) if not tensor.is_leaf]
        self.made: list[AttributeChange] = []
        """Attributes that the forward makes when it first runs."""
        if inputs is None and not plan.cut.inputs:
            self.failure = "the cut does not say what inputs the model takes, and set_cut got none"
            return
        for device in DEVICES:
            self.device = device
            if device == "cpu" and not has_values(root):
                continue
            for args, kwargs in self.ways_to_call():
                shadow = self._reference()
                held = held_by(shadow)
                trace = self._record(shadow, args, kwargs)
                if trace.error is None:
                    self.made = made_since(held, shadow)
                    self.everything = trace.calls
                    trace.calls = self._outside(trace)
                    self.before, self._call = trace, (args, kwargs)
                    return
                if not self.failure:
                    self.failure = f"{type(trace.error).__name__}: {trace.error}"

    def _reference(self) -> nn.Module:
        """Return what a pruned forward is compared with.

        On values that is the masked model: what data chooses (the tokens of an expert) is as in the
        pruned one then.
        """
        shadow = self.shadow({})
        if self.device == "cpu":
            names = dict(named_tensors(shadow))
            for name, axes in self.cut.terminal.items():
                if name in names and name not in self.cut.renumbers:
                    slices.set_zero_tensor(names[name], axes)
        return shadow

    @property
    def cannot_run_given(self) -> bool:
        """Whether the caller gave inputs that the model does not even run on with its values."""
        return not self.everything and self._given is not None and has_values(self.root)

    def _record(
        self,
        shadow: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        watch: Callable[[Call], None] | None = None,
    ) -> Trace:
        with tables_untouched(self.root), self._pretending(), _quietly():
            device = {"meta": "meta", "fake": "cpu", "cpu": str(self.home)}[self.device]
            return record(shadow, args, kwargs, device, watch, self.device != "cpu")

    def _pretending(self) -> AbstractContextManager[Any]:
        return self._fake if self.device == "fake" else nullcontext()

    def candidate(self, attributes: Sequence[AttributeChange | Correction]) -> nn.Module:
        """Return a shadow of the model as it will be, with these attributes."""
        shapes = {id(t.tensor): t for t in self.plan.targets}
        values = {id(p.tensor): p for p in self.plan.positions}
        shadow = self.shadow(shapes, values)
        names = {
            f"self.{path}" if path else "self": m
            for path, m in shadow.named_modules(remove_duplicate=False)
        }
        for change in attributes:
            if isinstance(change, Correction):
                continue
            owner: Any = names[change.module]
            for step in change.path[:-1]:
                owner = getattr(owner, step)
            new: Any
            if isinstance(change.new, CorrectedForward):
                new = change.new.of(owner)  # it would run the model's own module else
            else:
                new = dict(change.new) if type(change.new) is dict else self._as_here(change.new)
            put_attribute(owner, change.path[-1], new)
        corrections = [change for change in attributes if isinstance(change, Correction)]
        for name, forward in correct(names, corrections).items():
            put_attribute(names[name], "forward", forward)
        return shadow

    def rehearse(self, shadow: nn.Module) -> Outcome:
        """Run a candidate up to its first disagreement with the run before the cut."""
        self.attempts += 1
        with self._pretending():
            args, kwargs = cut_inputs(self.cut, *self._call)
        comparison = _Comparison(self)
        trace = self._record(shadow, args, kwargs, comparison.see)
        return comparison.conclude(trace)

    def failure_in_training(self, attributes: Sequence[AttributeChange | Correction]) -> str:
        """Return how the pruned forward fails in training mode, if only there and only when pruned."""
        if not self.everything:
            return ""
        args, kwargs = self._call
        with self._pretending():
            cut_args, cut_kwargs = cut_inputs(self.cut, args, kwargs)
        if self._record(self.shadow({}).train(), args, kwargs).error is not None:
            return ""
        error = self._record(self.candidate(attributes).train(), cut_args, cut_kwargs).error
        return "" if error is None else f"{type(error).__name__}: {error}".partition("\n")[0]

    def holds_for_another_batch(self, attributes: Sequence[AttributeChange | Correction]) -> bool:
        """Tell whether a candidate that is right still runs, and as well, on one more example.

        A number in the code may have the batch in it. True where the model itself takes no other batch.
        """
        args, kwargs = self._call
        batches = {x.shape[:1] for x in _tensors_of(args, kwargs)}
        if len(batches) != 1 or batches == {()}:
            return True
        with self._pretending():
            args, kwargs = tree_map(_one_more, (args, kwargs))
            cut_args, cut_kwargs = cut_inputs(self.cut, args, kwargs)
        before = self._record(self.shadow({}), args, kwargs)
        if before.error is not None or len(before.outputs) != len(self.cut.outputs):
            return True
        after = self._record(self.candidate(attributes), cut_args, cut_kwargs)
        if after.error is not None or len(after.outputs) != len(before.outputs):
            return False
        return all(
            shrinkage(old, now) == shrinkage(first, spec.shape)
            for old, now, first, spec in zip(
                before.outputs, after.outputs, self.before.outputs, self.cut.outputs, strict=True
            )
            if -1 not in spec.shape
        )

    def holds_for_another_run(self, attributes: Sequence[AttributeChange | Correction]) -> bool:
        """Tell whether a candidate that is right makes the same calls when it runs again.

        A forward that makes a table when it first runs makes fewer later, and a correction counts calls.
        """
        if not self.made and not any(map(empties, attributes)):
            return True
        with self._pretending():
            args, kwargs = cut_inputs(self.cut, *self._call)
        shadow = self.candidate(attributes)
        first, second = (self._record(shadow, args, kwargs) for _ in range(2))
        if first.error is not None or second.error is not None:
            return False
        return all(
            _count(first, correction) == _count(second, correction)
            for correction in attributes
            if isinstance(correction, Correction)
        )

    def _outside(self, trace: Trace) -> list[Call]:
        return [call for call in trace.calls if call.module not in self.inside]

    def call_with_values(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return arguments with values, in the form on which the model has run."""
        args, kwargs = next(iter(self.ways_to_call()))
        if self._given is None and self._call[0] == ():
            kwargs = dict(zip(self._call[1], _tensors_of(args, kwargs), strict=False))
            args = ()
        return args, kwargs

    def shadow(
        self, targets: Mapping[int, Any], positions: Mapping[int, Positions] | None = None
    ) -> nn.Module:
        # What was computed from the weights is kept by some models, and is copied by its values.
        memo: dict[int, Any] = {id(x): x.detach().clone() for x in self._computed}
        seen: set[int] = set()
        for module in self.root.modules():
            for _, tensor in own_tensors(module):
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    double = self._double(tensor, targets.get(id(tensor)))
                    if positions and self.device == "cpu" and id(tensor) in positions:
                        double = positions[id(tensor)].after(double)
                    memo[id(tensor)] = double
        return copied(self.root, memo).eval()

    def _double(self, tensor: torch.Tensor, target: Any) -> torch.Tensor:
        if self.device == "cpu":
            data = tensor.detach()
            if target is not None and tuple(tensor.shape) == target.before:
                data, _ = slices.cut_data(data, target.axes)
            else:
                data = data.clone()
            return _same_kind(tensor, data)
        shape = tuple(tensor.shape) if target is None else target.after
        key = (id(tensor), shape, self.device)
        if key not in self._doubles:  # without values, one serves every shadow
            with self._pretending():
                device = "meta" if self.device == "meta" else "cpu"
                data = torch.empty(shape, dtype=tensor.dtype, device=device)
                self._doubles[key] = _same_kind(tensor, data)
        return self._doubles[key]

    def _as_here(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if self.device == "cpu":
            return value.detach().to(self.home)
        with tables_untouched(self.root), self._pretending():
            device = "meta" if self.device == "meta" else "cpu"
            return torch.empty(value.shape, dtype=value.dtype, device=device)

    def ways_to_call(self) -> Iterable[tuple[tuple[Any, ...], dict[str, Any]]]:
        if self._given is not None:
            given = tree_map(self._as_here, self._given)
            if isinstance(given, Mapping):
                yield (), dict(given)
            else:
                yield tuple(given) if isinstance(given, (tuple, list)) else (given,), {}
            return
        with self._pretending():
            tensors = [_example(spec, self.device) for spec in self.cut.inputs]
        if self.device == "cpu":
            tensors = [tensor.to(self.home) for tensor in tensors]
        names = [spec.name for spec in self.cut.inputs]
        parameters = inspect.signature(self.root.forward).parameters
        if all(name in parameters for name in names):
            yield (), dict(zip(names, tensors, strict=True))
        yield tuple(tensors), {}
        yield (tensors,), {}


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep PyTorch from logging what fails on fake tensors: a candidate that fails is no error."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")

    def nothing(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)


class _Disagreement(Exception):
    """Raised into a forward to stop it."""


class _Comparison:
    """Compares a run with the one before the cut, call by call."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.old = stage.before.calls
        self.position = 0
        self.unexplained = 0
        self.outcome: Outcome | None = None
        self.suspects: list[tuple[Call, Call]] = []
        self.places: list[tuple[Call, Call]] = []
        self.counted: list[tuple[Call, Call]] = []

    def see(self, call: Call) -> None:
        """Take the next call into account; stops the run at the first disagreement."""
        if call.module in self.stage.inside:
            return
        self.outcome = self._disagreement(call)
        if self.outcome is not None:
            raise _Disagreement
        self.position += 1

    def _disagreement(self, call: Call) -> Outcome | None:
        i = self.position
        if i >= len(self.old):
            return Outcome(False, i, call.module, reason="takes another path", diverged=True)
        old = self.old[i]
        if not _alike(old, call):
            reason = f"{old.function} became {call.function}"
            return Outcome(False, i, old.module, old, reason=reason, diverged=True)
        if old.scalars != call.scalars:
            reason = (
                f"{call.function} would compute with {_only(call.scalars)} in the place of "
                f"{_only(old.scalars)}"
            )
            return Outcome(False, i, call.module, old, call, reason, computes_otherwise=True)
        if call.function not in SIZED and old.numbers != call.numbers:
            self.counted.append((old, call))
        if old.place and call.place and old.place.shape != call.place.shape:
            self.places.append((old, call))
        shaping = call.function in SHAPING and call.module in self.stage.owners
        if shaping and call.function in SPLITTING and self._splits_otherwise(old, call):
            self.suspects.append((old, call))
        if call.function in CREATING:
            # What follows by itself may have to stay, or to become another size than it does.
            sizes = (old.shapes[0], *self.stage.allowed.becomes(old.shapes[0]))
            if any(shape != call.shapes[0] for shape in sizes):
                self.suspects.append((old, call))
        for before, now in zip(old.shapes, call.shapes, strict=True):
            if shaping and before == now and self.stage.allowed.becomes(before):
                self.suspects.append((old, call))
            if before == now or self.stage.allowed.exactly(before, now):
                continue
            if shaping:
                reason = f"{call.function} would turn {before} into {now}"
                return Outcome(False, i, call.module, old, call, reason)
            self.unexplained += not self.stage.allowed.loosely(before, now)
        if _repeats_what_is_left(old, call):
            reason = f"{call.function} would repeat the one slice that is left of {old.shapes[0]}"
            return Outcome(False, i, call.module, old, call, reason)
        return None

    def _splits_otherwise(self, old: Call, call: Call) -> bool:
        """Tell whether the cut knows other lengths for this split than the code makes of it."""
        wanted = list(split_sizes(self.stage.cut, old))
        if not wanted:
            return any(True for _ in self.stage.allowed.splits(old, call))
        return not any(
            all(size in shape for size, shape in zip(sizes, call.shapes, strict=True))
            for sizes in wanted
        )

    def conclude(self, trace: Trace) -> Outcome:
        """Return the outcome of a finished run."""
        outcome = self._outcome(trace)
        last = outcome.call, outcome.failing
        if last[0] and last[1] and last[0].place and last[1].place:
            self.places.append((last[0], last[1]))
        return replace(
            outcome,
            suspects=tuple(reversed(self.suspects)),
            places=tuple(self.places),
            origin=trace.origin,
            moved=any(old.place.value != now.place.value for old, now in self.places),  # type: ignore[union-attr]
            counted=tuple(self.counted),
        )

    def _outcome(self, trace: Trace) -> Outcome:
        if self.outcome is not None:
            return self.outcome
        i = self.position
        if trace.error is not None:
            module = trace.failed or "self"
            said = str(trace.error).partition("\n")[0]
            old = self.old[i] if i < len(self.old) else None
            reason = f"{type(trace.error).__name__}: {said}"
            return Outcome(False, i, module, old, trace.pending, reason)
        if i != len(self.old):
            return Outcome(False, i, reason="takes another path", diverged=True)
        wrong = self._wrong_output(trace)
        if wrong:
            return Outcome(False, i, reason=wrong)
        return Outcome(True, i, unexplained=self.unexplained, calls=tuple(trace.calls))

    def _wrong_output(self, after: Trace) -> str:
        before = self.stage.before.outputs
        if len(after.outputs) != len(before):
            return f"{len(after.outputs)} outputs in the place of {len(before)}"
        expected = [tuple(spec.shape) for spec in self.stage.cut.outputs]
        for i, (old, now) in enumerate(zip(before, after.outputs, strict=True)):
            if len(expected) == len(after.outputs):
                if not fits(now, expected[i]):
                    return f"output {i} would have the shape {now} in the place of {expected[i]}"
            elif old != now and not self.stage.allowed.exactly(old, now):
                return f"output {i} would turn from {old} into {now}"
        return ""


def split_sizes(cut: CutResult, call: Call) -> Iterator[Vector]:
    """Yield the lengths that a splitting call makes after the cut, along the axes it may split."""
    for operator, change in cut.operator.items():
        less = change.get("split")
        if operator_owner(operator)[0] == call.module and isinstance(less, list):
            yield from sizes_after(call, less)


def sizes_after(call: Call, less: Sequence[int]) -> Iterator[Vector]:
    """Yield the lengths that a splitting call makes once ``less`` is taken off its parts."""
    if len(call.shapes) == len(less):
        for axis in range(len(call.shapes[0])):
            sizes = tuple(shape[axis] - gone for shape, gone in zip(call.shapes, less, strict=True))
            if min(sizes) > 0:
                yield sizes


def _repeats_what_is_left(old: Call, call: Call) -> bool:
    """Tell whether an operand of which one slice is left meets another that lost none.

    Of any other number the call would fail; one slice is repeated without a word.
    """
    if len(call.shapes) != 1 or len(old.operands) != len(call.operands):
        return False
    made = call.shapes[0]
    shrunk = any(
        x == size > 1 == y
        for before, now in zip(old.operands, call.operands, strict=True)
        if len(before) == len(now)
        for x, y, size in zip(reversed(before), reversed(now), reversed(made), strict=False)
    )
    if not shrunk or old.shapes[0] != made:
        return False
    if call.function in EXPANDING:
        return True
    return all(_broadcast(each) == made for each in (old.operands, call.operands))


def _broadcast(shapes: Sequence[Vector]) -> Vector | None:
    try:
        return tuple(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        return None


def _alike(old: Call, call: Call) -> bool:
    """Tell whether two calls are the same one."""
    return (old.module, kind_of(old.function), len(old.shapes)) == (
        call.module,
        kind_of(call.function),
        len(call.shapes),
    )


def _count(trace: Trace, correction: Correction) -> int:
    """Return how many calls a correction's module, and those below it, made of its function's kind."""
    kind, name = kind_of(correction.function), correction.module
    return sum(
        kind_of(call.function) == kind and f"{call.module}.".startswith(f"{name}.")
        for call in trace.calls
    )


def _only(values: tuple[float, ...]) -> Any:
    return values[0] if len(values) == 1 else values


def _same_kind(tensor: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(data, requires_grad=False)
    return data


def has_values(root: nn.Module) -> bool:
    return not any(tensor.is_meta for module in root.modules() for _, tensor in own_tensors(module))


def named_tensors(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    for path, module in model.named_modules(remove_duplicate=False):
        for attribute, tensor in own_tensors(module):
            yield f"self.{path}.{attribute}" if path else f"self.{attribute}", tensor


def _one_more(value: Any) -> Any:
    return torch.cat([value, value[:1]]) if isinstance(value, torch.Tensor) else value


def _tensors_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    return [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]


def _example(spec: TensorSpec, device: str) -> torch.Tensor:
    """Make an input: noise, or zeros and ones where integers are asked (they may be indices)."""
    generator = np.random.default_rng(0)
    dtype = getattr(torch, spec.dtype, None) or torch.from_numpy(np.zeros(1, spec.dtype)).dtype
    if device != "cpu":
        return torch.empty(spec.shape, dtype=dtype, device="meta" if device == "meta" else "cpu")
    if dtype == torch.bool:
        return torch.ones(spec.shape, dtype=dtype)
    if not dtype.is_floating_point:
        return torch.from_numpy(generator.integers(0, 2, spec.shape)).to(dtype)
    return torch.from_numpy(generator.standard_normal(spec.shape)).to(dtype)
