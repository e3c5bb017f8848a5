"""Models that FSDP2 has sharded: a stand-in of the same structure, with whole shapes and no memory.

``fully_shard`` replaces each parameter by a piece of it and gathers the pieces as the modules run. A run
for the structure alone needs neither: the stand-in has the modules' own classes and hooks, and parameters
on ``meta``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def is_sharded(tensors: Iterable[Any]) -> bool:
    """Return whether any of ``tensors`` is a piece of one that is spread over processes."""
    distributed: Any = sys.modules.get("torch.distributed.tensor")
    return distributed is not None and any(isinstance(t, distributed.DTensor) for t in tensors)


def stand_in(model: nn.Module) -> nn.Module:
    """Return the modules of ``model`` anew, sharing what they hold, with tensors on ``meta``."""
    from torch.distributed.fsdp import FSDPModule

    made: dict[int, Any] = {}

    def on_meta(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
        found: torch.Tensor = made[id(tensor)]
        return found

    def of(module: nn.Module) -> nn.Module:
        if id(module) in made:
            known: nn.Module = made[id(module)]
            return known
        kind = type(module)
        if issubclass(kind, FSDPModule):
            kind = kind.__mro__[2]  # FSDP2 puts its own class and a mixin before the model's
        new: nn.Module = kind.__new__(kind)
        made[id(module)] = new
        state = dict(module.__dict__)
        for held in ("_parameters", "_buffers"):
            state[held] = {k: None if t is None else on_meta(t) for k, t in state[held].items()}
        state["_modules"] = {k: None if m is None else of(m) for k, m in state["_modules"].items()}
        for hooks in _HOOKS:
            state[hooks] = type(state[hooks])(
                (k, hook) for k, hook in state[hooks].items() if not _is_distributed(hook)
            )
        new.__dict__.update(state)
        return new

    return of(model)


def _is_distributed(hook: Any) -> bool:
    function = getattr(hook, "func", hook)
    return str(getattr(function, "__module__", "")).startswith("torch.distributed")
