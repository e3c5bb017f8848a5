"""The same cut replayed on the ``nn.Module``: its output, and whether it comes back bit for bit."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from benchmarks.zoo.onnx_check import TOLERANCE, Outputs, distance, less
from benchmarks.zoo.specimen import Inputs, call
from torchpruner_core.cut_result import CutResult
from torchpruner_core.errors import ReplayError
from torchpruner_core.pruning import recovery_cut, recovery_zero, set_cut, set_zero
from torchpruner_core.pruning.forward.comparison import copied


@dataclass(frozen=True, slots=True)
class ModuleCheck:
    """``corrected`` says that a literal in ``forward()`` had to be corrected as it runs."""

    error: float
    restored: bool
    corrected: bool = False
    reason: str = ""


def outputs_of(model: nn.Module, inputs: Inputs, count: int | None = None) -> list[torch.Tensor]:
    """Run the model and return its tensors in order.

    One that is returned twice may be one output of the program, which has ``count`` of them.
    """
    torch.manual_seed(0)
    found = [x for x in tree_leaves(call(model, inputs)) if isinstance(x, torch.Tensor)]
    if count is not None and len(found) != count:
        found = list({id(x): x for x in found}.values())
    return [x.detach().clone() for x in found]


def check(
    model: nn.Module, cut: CutResult, inputs: Inputs, reference: Outputs, compared: list[str] | None
) -> ModuleCheck:
    """Cut ``model`` in place, run it, and put it back.

    ``reference`` maps outputs, in the order the model returns them, to what they must be;
    ``compared`` names those that count (all). Raises :class:`ReplayError` where it is refused.
    """
    before = snapshot(model)
    corrected = False
    try:
        _, context = set_cut(model, cut, inputs=inputs)
    except ReplayError:
        corrected = True
        try:
            _, context = set_cut(model, cut, inputs=inputs, correct_forward=True)
        except ReplayError:
            left = changed(before, model)
            if left:
                return ModuleCheck(float("nan"), False, reason=f"refused, and left {left[:3]}")
            raise
    try:
        received = outputs_of(model, cut_inputs(cut, inputs), len(reference))
    finally:
        recovery_cut(model, cut, context)
    names = list(reference)
    if len(names) != len(received):
        raise ValueError(f"the module returns {len(received)} tensors, its ONNX form {len(names)}")
    wanted = set(names if compared is None else compared)
    got = {n: x.numpy() for n, x in zip(names, received, strict=True) if n in wanted}
    error = distance({name: reference[name] for name in got}, got)
    if not error <= TOLERANCE and not cut.renormalises:
        # Another framework's rounding may choose other boxes: then ask PyTorch itself.
        error = min(error, _against_zero(model, cut, inputs, names, got))
    left = changed(before, model)
    if not error <= TOLERANCE and not cut.renormalises:
        # Rounding that masking blows up is no difference: float64 tells.
        error = min(error, _in_float64(model, cut, inputs, names, wanted, corrected))
    return ModuleCheck(error, not left, corrected, f"{left[:3]} differ" if left else "")


def _against_zero(
    model: nn.Module, cut: CutResult, inputs: Inputs, names: list[str], got: Outputs
) -> float:
    """Return how far ``got`` is from what ``model`` gives with the slices at zero."""
    _, context = set_zero(model, cut)
    try:
        zeroed = outputs_of(model, inputs, len(names))
    finally:
        recovery_zero(model, cut, context)
    same = dict(zip(names, zeroed, strict=True))
    return distance({name: less(cut, name, same[name].numpy()) for name in got}, got)


def _in_float64(
    model: nn.Module,
    cut: CutResult,
    inputs: Inputs,
    names: list[str],
    wanted: set[str],
    corrected: bool,
) -> float:
    """Return the same difference for a copy of the model in float64."""
    exact = copied(model).double()
    precise: Inputs = tree_map(lambda x: x.double() if x.is_floating_point() else x, inputs)
    _, context = set_cut(exact, cut, inputs=precise, correct_forward=corrected)
    try:
        received = outputs_of(exact, cut_inputs(cut, precise), len(names))
    finally:
        recovery_cut(exact, cut, context)
    got = {n: x.numpy() for n, x in zip(names, received, strict=True) if n in wanted}
    return _against_zero(exact, cut, precise, names, got)


def cut_inputs(cut: CutResult, inputs: Inputs) -> Inputs:
    """Return the inputs without what the cut takes from them."""
    names = [spec.name for spec in cut.inputs]

    def shortened(position: int, name: str, value: torch.Tensor) -> torch.Tensor:
        key = name if name in cut.iner else names[position] if position < len(names) else name
        for dim, index in enumerate(cut.iner.get(key, [])):
            if index is not None:
                kept = np.setdiff1d(np.arange(value.shape[dim]), index)
                value = value.index_select(dim, torch.from_numpy(kept))
        return value

    if isinstance(inputs, tuple):
        return tuple(shortened(k, "", value) for k, value in enumerate(inputs))
    return {name: shortened(k, name, value) for k, (name, value) in enumerate(inputs.items())}


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Return every tensor and plain attribute of a model, by name."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        found[f"{path}#type"] = type(module)
        found[f"{path}#forward"] = "forward" in vars(module)
        for name, value in vars(module).items():
            if isinstance(value, bool | int | float | str | tuple | list | torch.Size):
                found[f"{path}.{name}"] = copy.copy(value)
    tensors = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in tensors:
        found[f"{name}@"] = (id(tensor), tensor.stride())
        found[name] = tensor.detach().clone()
    config: Any = getattr(model, "config", None)
    if hasattr(config, "to_dict"):
        found["#config"] = config.to_dict()
    return found


def changed(before: dict[str, Any], model: nn.Module) -> list[str]:
    """Return the names of what differs from a snapshot, bit by bit."""
    after = snapshot(model)
    names = list(before.keys() ^ after.keys())
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if isinstance(old, torch.Tensor):
            same = old.shape == new.shape and old.dtype == new.dtype and _bits_equal(old, new)
        else:
            try:
                same = bool(old == new)
            except (RuntimeError, ValueError):
                same = True  # containers of tensors, which are compared by themselves
        if not same:
            names.append(name)
    return sorted(names)


def _bits_equal(old: torch.Tensor, new: torch.Tensor) -> bool:
    if not old.numel():
        return True
    if torch.equal(old, new):
        return True  # NaN, or -0 against 0, need a closer look
    return bool(torch.equal(old.contiguous().view(torch.uint8), new.contiguous().view(torch.uint8)))
