"""Do the values prove a cut right? The masked network and the pruned one are run and compared.

Shapes leave open what a bound, an index or a count means; values do not. Where statistics run over
a pruned axis they differ, and rightly so: they are held at one in both networks then, and all the
rest is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from torchpruner_core.cut_dict import operator_owner
from torchpruner_core.pruning.forward.boundaries import (
    cut_inputs,
    flatten_outputs,
    less_cut_outputs,
)
from torchpruner_core.pruning.forward.corrections import Correction
from torchpruner_core.pruning.forward.lazily import empties
from torchpruner_core.pruning.forward.rehearsal import Stage, has_values, named_tensors
from torchpruner_core.pruning.tensors import slices
from torchpruner_core.pruning.tensors.journal import AttributeChange, put_attribute
from torchpruner_core.pruning.tensors.targets import module_path
from torchpruner_core.untouched import tables_untouched

TOLERANCE = 1e-4
"""Relative difference from the masked model below which values prove a cut."""

NOISE = 1e-6
"""Relative change of the inputs whose effect tells how far rounding can move the outputs."""

MOST_BYTES = 2 << 30
"""A model with more bytes of weights is not copied to be compared."""

NORMS = frozenset({"layer_norm", "rms_norm", "group_norm"})
SOFT = frozenset({"softmax", "log_softmax"})
REDUCTIONS = frozenset(
    (
        "mean", "nanmean", "sum", "nansum", "prod", "var", "std", "var_mean", "std_mean", "amax", "amin",
        "max", "min", "logsumexp",
    )
)  # fmt: skip
HELD = frozenset(
    (
        "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "GroupNormalization",
        "InstanceNormalization", "Softmax", "LogSoftmax", "ReduceMean", "ReduceSum", "ReduceProd",
        "ReduceMax", "ReduceMin", "ReduceLogSumExp",
    )
)  # fmt: skip
"""Operators that are computed by functions which can be held."""


def difference(stage: Stage, attributes: Sequence[AttributeChange | Correction]) -> float | None:
    """Return how far the pruned model is from the masked one, relative to its largest output.

    Infinite where only the pruned one fails. ``None`` where nothing can be told: without values, for
    a model too large to copy, or where a statistic changes that cannot be held.
    """
    weights = sum(tensor.nbytes for _, tensor in named_tensors(stage.root))
    if not has_values(stage.root) or weights > MOST_BYTES:
        return None
    device, stage.device = stage.device, "cpu"
    try:
        random = torch.random.fork_rng(devices=[])
        with torch.no_grad(), random, _exact(stage.home), tables_untouched(stage.root):
            return _Comparison(stage, attributes).run()
    except Exception:
        return None
    finally:
        stage.device = device


def _exact(device: torch.device) -> AbstractContextManager[Any]:
    """Compute convolutions in full precision: the rounding of TF32 would hide, or feign, a difference."""
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    return cudnn.flags(
        cudnn.enabled, cudnn.benchmark, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=False
    )


class _Comparison:
    def __init__(self, stage: Stage, attributes: Sequence[AttributeChange | Correction]) -> None:
        self.stage, self.cut = stage, stage.cut
        self.attributes = attributes
        self._emptied: dict[str, list[AttributeChange]] = {}
        for change in attributes:
            if isinstance(change, AttributeChange) and empties(change):
                self._emptied.setdefault(change.module, []).append(change)
        self.args, self.kwargs = stage.call_with_values()

    def run(self) -> float | None:
        expected, theirs = self._masked()
        received, ours = self._pruned()
        if received is None:
            return float("inf")
        if self.cut.renormalises:
            if [name for name, _ in theirs] != [name for name, _ in ours]:
                return None
            held = frozenset(k for k, (x, y) in enumerate(zip(theirs, ours, strict=True)) if x != y)
            if sum(theirs[k][0] in SOFT for k in held) > self._soft_operators():
                self.stage.failed_with_values = (
                    "a softmax of constants runs over what is cut: the graph holds its result"
                )
                return float("inf")
            expected, _ = self._masked(held)
            received, _ = self._pruned(held)
            if received is None:
                return None
        worst = _distance(expected, received)
        if worst is None or worst <= TOLERANCE:
            return worst
        if any(operator_owner(name)[1] not in HELD for name in self.cut.renormalises):
            return None
        if not self.cut.renormalises:
            again, _ = self._masked(nudge=1 + NOISE)
            moved = _distance(expected, again)
            if moved is None or worst <= 10 * moved:
                return None
        return worst

    def _soft_operators(self) -> int:
        """Return how many operators may be a softmax that the graph knows to run over what is cut."""
        types = [operator_owner(name)[1] for name in self.cut.renormalises]
        return sum(each in ("Softmax", "LogSoftmax") or each not in HELD for each in types)

    def _masked(
        self, held: frozenset[int] = frozenset(), nudge: float = 1.0
    ) -> tuple[list[torch.Tensor], list[tuple[str, int]]]:
        model = self.stage.shadow({})
        modules = {name: model.get_submodule(module_path(name)) for name in self._emptied}
        for name, changes in self._emptied.items():
            for change in changes:
                new = change.new
                put_attribute(modules[name], change.path[0], type(new)() if new == {} else new)
        names = dict(named_tensors(model))
        for name, axes in self.cut.terminal.items():
            if name in names and name not in self.cut.renumbers:
                slices.set_zero_tensor(names[name], axes)
        outputs, seen = _run(model, self.args, self.kwargs, held, nudge)
        return less_cut_outputs(self.cut, outputs), seen

    def _pruned(
        self, held: frozenset[int] = frozenset()
    ) -> tuple[list[torch.Tensor] | None, list[tuple[str, int]]]:
        model = self.stage.candidate(self.attributes)
        args, kwargs = cut_inputs(self.cut, self.args, self.kwargs)
        try:
            return _run(model, args, kwargs, held)
        except Exception as error:
            self.stage.failed_with_values = (
                f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            )
            return None, []


def _run(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    held: frozenset[int],
    nudge: float = 1.0,
) -> tuple[list[torch.Tensor], list[tuple[str, int]]]:
    def copied(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value * nudge if value.is_floating_point() else value.clone()

    torch.manual_seed(0)
    statistics = _Statistics(held)
    with statistics:
        result = model(*tree_map(copied, args), **tree_map(copied, dict(kwargs)))
    return [x.clone() for x in flatten_outputs(result)], statistics.seen


def _distance(expected: list[torch.Tensor], received: list[torch.Tensor]) -> float | None:
    worst = 0.0
    for x, y in zip(expected, received, strict=True):
        if x.shape != y.shape:
            return float("inf")
        if x.is_floating_point() and x.numel():
            scale = float(x.abs().max())
            if scale != scale or scale == float("inf"):
                return None
            worst = max(worst, float((x - y).abs().max()) / max(scale, 1e-12))
    return worst if worst == worst else float("inf")


class _Statistics(TorchFunctionMode):
    """Notes over how many numbers each statistic runs; those that are ``held`` become one."""

    def __init__(self, held: frozenset[int]) -> None:
        super().__init__()
        self.held = held
        self.seen: list[tuple[str, int]] = []

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        count = _count(name, args, kwargs)
        result = func(*args, **kwargs)
        if count is None:
            return result
        self.seen.append((name, count))
        if len(self.seen) - 1 not in self.held:
            return result
        if name in NORMS:
            return _scaled(name, args, kwargs)
        if name in SOFT:
            return args[0]
        return tree_map(lambda x: torch.ones_like(x) if isinstance(x, torch.Tensor) else x, result)


def _count(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int | None:
    """Return how many numbers each result of a statistic is computed from; ``None`` for other functions."""
    x = args[0] if args else kwargs.get("input")
    if not isinstance(x, torch.Tensor):
        return None
    if name in ("layer_norm", "rms_norm"):
        return prod(map(int, args[1] if len(args) > 1 else kwargs["normalized_shape"]))
    if name == "group_norm":
        groups = args[1] if len(args) > 1 else kwargs["num_groups"]
        return int(x.numel()) // max(int(x.shape[0]) * int(groups), 1)
    if name not in SOFT and name not in REDUCTIONS:
        return None
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    if isinstance(dim, torch.Tensor):
        return None
    dims = range(x.ndim) if dim is None or isinstance(dim, bool) else dim
    several = dims if isinstance(dims, (tuple, list, range)) else (int(dims),)
    return prod(int(x.shape[d]) for d in several)


def _scaled(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """Return a normalisation's result as if its statistics were zero and one."""
    x: torch.Tensor = args[0] if args else kwargs["input"]
    weight = kwargs.get("weight", args[2] if len(args) > 2 else None)
    bias = kwargs.get("bias", args[3] if len(args) > 3 and name != "rms_norm" else None)
    shape = (1, -1, *[1] * (x.ndim - 2)) if name == "group_norm" else None
    if isinstance(weight, torch.Tensor):
        x = x * (weight if shape is None else weight.reshape(shape))
    if isinstance(bias, torch.Tensor):
        x = x + (bias if shape is None else bias.reshape(shape))
    return x
