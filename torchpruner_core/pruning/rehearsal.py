"""Running the pruned ``forward()`` before the model is pruned.

The model's structure is copied with empty tensors on the ``meta`` device (shapes, no values), once
with the shapes it has and once with those it will have. The copies are run, and every call of the
second run is compared with the first: a shape must be the old one, or differ by what the cut
removes somewhere. That catches what an output's shape hides: ``view(b, t, 8, -1)`` runs happily with
seven heads' worth of features, as eight thinner heads.

A model that cannot run on ``meta`` (it looks at values) runs on real tensors instead.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from torchpruner_core.cut_result import CutResult, TensorSpec
from torchpruner_core.pruning import slices
from torchpruner_core.pruning.cut_dict import operator_owner
from torchpruner_core.pruning.journal import AttributeChange, put_attribute
from torchpruner_core.pruning.plan import Plan
from torchpruner_core.pruning.targets import own_tensors
from torchpruner_core.pruning.trace import SHAPING, Call, Trace, flatten_outputs, record

Vector = tuple[int, ...]
"""How much each axis of a tensor shrinks."""


@dataclass(frozen=True)
class Outcome:
    """How far a rehearsal agrees with the cut.

    ``position`` is the number of calls before the first disagreement, ``module`` where that is,
    ``unexplained`` the number of shapes that changed in no way the cut knows of.
    """

    good: bool
    position: int
    module: str = "self"
    call: Call | None = None
    reason: str = ""
    unexplained: int = 0


class Stage:
    """A model's shadow before the cut, run once, and the ground to rehearse the cut on."""

    def __init__(self, root: nn.Module, plan: Plan, inputs: Any = None) -> None:
        self.root, self.plan, self.cut = root, plan, plan.cut
        self.allowed = _allowed(plan.cut)
        self.owners = {operator_owner(name)[0] for name in plan.untaken}
        self.failure = ""
        self.device = "meta"
        self.attempts = 0
        self._given = inputs
        self.before: Trace = Trace()
        if inputs is None and not plan.cut.inputs:
            self.failure = "the cut does not say what inputs the model takes, and set_cut got none"
            return
        for device in ("meta", "cpu"):
            self.device = device
            if device == "cpu" and not _has_values(root):
                continue
            for args, kwargs in self._calls():
                trace = record(self._shadow({}), args, kwargs, device)
                if trace.error is None:
                    self.before, self._call = trace, (args, kwargs)
                    return
                self.failure = f"{type(trace.error).__name__}: {trace.error}"

    def candidate(self, attributes: Iterable[AttributeChange]) -> nn.Module:
        """Return a shadow of the model as it will be, with these attributes."""
        shapes = {id(t.tensor): t for t in self.plan.targets}
        shadow = self._shadow(shapes)
        names = {
            f"self.{path}" if path else "self": m
            for path, m in shadow.named_modules(remove_duplicate=False)
        }
        for change in attributes:
            owner: Any = names[change.module]
            for step in change.path[:-1]:
                owner = getattr(owner, step)
            put_attribute(owner, change.path[-1], change.new)
        return shadow

    def rehearse(self, shadow: nn.Module) -> Outcome:
        """Run a candidate and compare it with the run before the cut."""
        self.attempts += 1
        args, kwargs = self._cut_inputs(*self._call)
        return self._compare(record(shadow, args, kwargs, self.device))

    def calls_of(self, shadow: nn.Module) -> list[Call]:
        """Run a candidate and return its calls."""
        args, kwargs = self._cut_inputs(*self._call)
        return record(shadow, args, kwargs, self.device).calls

    def difference(self, attributes: Sequence[AttributeChange]) -> float | None:
        """Return how far the pruned model is from the masked one, relative to its largest output.

        ``None`` where that says nothing: without values, or where the cut renormalises.
        """
        if self.cut.renormalises or not _has_values(self.root):
            return None
        device, self.device = self.device, "cpu"
        try:
            args, kwargs = next(iter(self._calls()))
            if self._given is None and self._call[0] == ():
                kwargs = dict(zip(self._call[1], _tensors_of(args, kwargs), strict=False))
                args = ()
            masked, pruned = self._shadow({}), self.candidate(attributes)
            names = dict(_named_tensors(masked))
            with torch.no_grad():
                for name, axes in self.cut.terminal.items():
                    if name in names:
                        slices.set_zero_tensor(names[name], axes)
                expected = flatten_outputs(masked(*args, **kwargs))
                args, kwargs = self._cut_inputs(args, kwargs)
                received = flatten_outputs(pruned(*args, **kwargs))
            worst = 0.0
            for x, y in zip(expected, received, strict=True):
                if x.shape == y.shape and x.is_floating_point():
                    scale = max(float(x.abs().max()), 1e-12)
                    worst = max(worst, float((x - y).abs().max()) / scale)
            return worst
        except Exception:
            return None
        finally:
            self.device = device

    def _compare(self, after: Trace) -> Outcome:
        unexplained = 0
        for i, call in enumerate(after.calls):
            if i >= len(self.before.calls):
                return Outcome(False, i, call.module, call, "the pruned forward takes another path")
            old = self.before.calls[i]
            if (old.module, old.function, len(old.shapes)) != (
                call.module,
                call.function,
                len(call.shapes),
            ):
                return Outcome(False, i, old.module, old, f"{old.function} became {call.function}")
            if old.scalars != call.scalars:
                reason = (
                    f"{call.function} would compute with {_only(call.scalars)} in the place of "
                    f"{_only(old.scalars)}"
                )
                return Outcome(False, i, call.module, old, reason)
            for before, now in zip(old.shapes, call.shapes, strict=True):
                vector = _shrinkage(before, now)
                if vector is not None and (not any(vector) or vector in self.allowed):
                    continue
                if call.function in SHAPING and call.module in self.owners:
                    reason = f"{call.function} would turn {before} into {now}"
                    return Outcome(False, i, call.module, old, reason)
                if (
                    vector is None
                    or tuple(sorted(v for v in vector if v)) not in self.allowed.loose
                ):
                    unexplained += 1
        if after.error is not None:
            i = len(after.calls)
            old_call = self.before.calls[i] if i < len(self.before.calls) else None
            module = after.failed or "self"
            reason = f"{type(after.error).__name__}: {str(after.error).splitlines()[0] if str(after.error) else ''}"
            return Outcome(False, i, module, old_call, reason)
        if len(after.calls) != len(self.before.calls):
            return Outcome(
                False, len(after.calls), "self", None, "the pruned forward takes another path"
            )
        wrong = self._wrong_output(after)
        if wrong:
            return Outcome(False, len(after.calls), "self", None, wrong)
        return Outcome(True, len(after.calls), unexplained=unexplained)

    def _wrong_output(self, after: Trace) -> str:
        if len(after.outputs) != len(self.before.outputs):
            return f"{len(after.outputs)} outputs in the place of {len(self.before.outputs)}"
        expected = [tuple(spec.shape) for spec in self.cut.outputs]
        for i, (before, now) in enumerate(zip(self.before.outputs, after.outputs, strict=True)):
            if len(expected) == len(after.outputs):
                if now != expected[i]:
                    return f"output {i} would have the shape {now} in the place of {expected[i]}"
            else:
                vector = _shrinkage(before, now)
                if vector is None or (any(vector) and vector not in self.allowed):
                    return f"output {i} would turn from {before} into {now}"
        return ""

    def _shadow(self, targets: Mapping[int, Any]) -> nn.Module:
        memo: dict[int, Any] = {}
        for module in self.root.modules():
            for _, tensor in own_tensors(module):
                if id(tensor) not in memo:
                    memo[id(tensor)] = self._double(tensor, targets.get(id(tensor)))
        shadow: nn.Module = copy.deepcopy(self.root, memo)
        return shadow.eval()

    def _double(self, tensor: torch.Tensor, target: Any) -> torch.Tensor:
        data = tensor.detach()
        if self.device == "meta":
            shape = tuple(tensor.shape) if target is None else target.after
            data = torch.empty(shape, dtype=tensor.dtype, device="meta")
        elif target is not None and tuple(tensor.shape) == target.before:
            data, _ = slices.cut_data(data, target.axes)
        else:
            data = data.clone()
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(data, requires_grad=False)
        return data

    def _calls(self) -> Iterable[tuple[tuple[Any, ...], dict[str, Any]]]:
        if self._given is not None:
            given = tree_map(
                lambda x: x.to(self.device) if isinstance(x, torch.Tensor) else x, self._given
            )
            if isinstance(given, Mapping):
                yield (), dict(given)
            else:
                yield tuple(given) if isinstance(given, (tuple, list)) else (given,), {}
            return
        tensors = [_example(spec, self.device) for spec in self.cut.inputs]
        names = [spec.name for spec in self.cut.inputs]
        parameters = inspect.signature(self.root.forward).parameters
        if all(name in parameters for name in names):
            yield (), dict(zip(names, tensors, strict=True))
        yield tuple(tensors), {}
        yield (tensors,), {}

    def _cut_inputs(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Shorten the inputs that the cut reaches."""
        named = {
            spec.name: self.cut.iner.get(spec.name) or self.cut.terminal.get(spec.name)
            for spec in self.cut.inputs
        }
        if not any(named.values()):
            return args, kwargs
        order = iter(self.cut.inputs)

        def shorten(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            spec = next(order, None)
            axes = None if spec is None else named[spec.name]
            if axes is None:
                return value
            return slices.cut_data(value, slices.read_axes(axes, value.shape))[0]

        args, kwargs = tree_map(shorten, (args, kwargs))
        return args, kwargs


class _Allowed(set[Vector]):
    """The ways in which the cut shortens a tensor; ``loose`` forgets which axis is which."""

    loose: set[Vector]


def _allowed(cut: CutResult) -> _Allowed:
    allowed = _Allowed()
    for tensors in (cut.terminal, cut.iner):
        for axes in tensors.values():
            allowed.add(tuple(0 if a is None else len(a) for a in axes))
    for change in cut.operator.values():
        for key, amount in change.items():
            if isinstance(amount, list) and key == "shape":
                allowed.add(tuple(amount))
    allowed.loose = {tuple(sorted(v for v in vector if v)) for vector in allowed}
    return allowed


def _shrinkage(before: Sequence[int], now: Sequence[int]) -> Vector | None:
    if len(before) != len(now):
        return None
    return tuple(x - y for x, y in zip(before, now, strict=True))


def _only(values: tuple[float, ...]) -> Any:
    return values[0] if len(values) == 1 else values


def _has_values(root: nn.Module) -> bool:
    return not any(tensor.is_meta for module in root.modules() for _, tensor in own_tensors(module))


def _named_tensors(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    for path, module in model.named_modules(remove_duplicate=False):
        for attribute, tensor in own_tensors(module):
            yield f"self.{path}.{attribute}" if path else f"self.{attribute}", tensor


def _tensors_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    return [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]


def _example(spec: TensorSpec, device: str) -> torch.Tensor:
    """Make an input: noise, or zeros and ones where integers are asked (they may be indices)."""
    generator = np.random.default_rng(0)
    dtype = getattr(torch, spec.dtype, None) or torch.from_numpy(np.zeros(1, spec.dtype)).dtype
    if device == "meta":
        return torch.empty(spec.shape, dtype=dtype, device="meta")
    if dtype == torch.bool:
        return torch.ones(spec.shape, dtype=dtype)
    if not dtype.is_floating_point:
        return torch.from_numpy(generator.integers(0, 2, spec.shape)).to(dtype)
    return torch.from_numpy(generator.standard_normal(spec.shape)).to(dtype)
