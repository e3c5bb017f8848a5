"""Small networks, and cuts of them written out by hand: no engine is needed to check the replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from torchpruner_core.cut_result import CutResult, TensorSpec


def axes(rank: int, **cuts: list[int]) -> list[Any]:
    """Return one entry an axis: ``axes(4, a0=[0, 1])`` cuts the first of four."""
    found: list[Any] = [None] * rank
    for key, indices in cuts.items():
        found[int(key[1:])] = np.asarray(indices, dtype=np.int64)
    return found


def cut(terminal: dict[str, list[Any]], **fields: Any) -> CutResult:
    """Return a result that lists these terminals."""
    return CutResult(terminal=terminal, **fields)


class ConvNet(nn.Sequential):
    """conv - batch norm - relu - conv, channels 3 -> 8 -> 4."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))


def conv_net_cut(indices: list[int]) -> CutResult:
    """Return the cut of channels between the two convolutions of :class:`ConvNet`."""
    return cut(
        {
            "self.0.weight": axes(4, a0=indices),
            "self.0.bias": axes(1, a0=indices),
            "self.1.weight": axes(1, a0=indices),
            "self.1.bias": axes(1, a0=indices),
            "self.1.running_mean": axes(1, a0=indices),
            "self.1.running_var": axes(1, a0=indices),
            "self.3.weight": axes(4, a1=indices),
        }
    )


def state(model: nn.Module) -> dict[str, Any]:
    """Return every value, gradient, identity and attribute of a model, to compare later."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        found[f"{path}:class"] = type(module)
        for name, value in module.__dict__.items():
            if isinstance(value, (int, float, str, tuple, type(None))):
                found[f"{path}:{name}"] = value
        found[f"{path}:names"] = list(module.__dict__)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[name] = (id(tensor), tensor.detach().clone(), tensor.stride(), tensor.dtype)
        found[f"{name}:grad"] = None if tensor.grad is None else tensor.grad.clone()
    return found


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Assert that two states are equal bit for bit."""
    assert before.keys() == after.keys()
    for key, value in before.items():
        other = after[key]
        if isinstance(value, tuple) and len(value) == 4 and isinstance(value[1], torch.Tensor):
            assert value[0] == other[0], f"{key} is another object"
            assert value[2:] == other[2:], f"{key}: {value[2:]} became {other[2:]}"
            assert torch.equal(value[1], other[1]), key
        elif isinstance(value, torch.Tensor):
            assert other is not None and torch.equal(value, other), key
        else:
            assert value == other, f"{key}: {value} became {other}"


def specs(*shapes: tuple[int, ...]) -> tuple[TensorSpec, ...]:
    """Return float inputs of these shapes."""
    return tuple(TensorSpec(f"input{i}", shape) for i, shape in enumerate(shapes))
