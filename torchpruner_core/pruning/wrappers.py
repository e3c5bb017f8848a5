"""Wrappers that keep something about their parameters' shapes beside them."""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import nn

from torchpruner_core.errors import UnsupportedModuleError

_NEEDED = ("reducer", "_build_params_for_reducer", "_ddp_init_helper", "static_graph")


def check_wrappers(model: nn.Module) -> None:
    """Raise :class:`UnsupportedModuleError` for a wrapper that could not follow a cut."""
    for wrapper in _distributed(model):
        if any(not hasattr(wrapper, name) for name in _NEEDED):
            raise UnsupportedModuleError(
                "this version of DistributedDataParallel cannot follow a cut: cut wrapper.module and "
                "wrap it again"
            )


def refresh_wrappers(model: nn.Module) -> None:
    """Let distributed wrappers make their gradient buckets anew, for the present shapes.

    Their reducer waits at the gradient accumulators that the parameters had before the cut. Every
    process must make the same cut.
    """
    distributed: Any = torch.distributed
    for wrapper in _distributed(model):
        wrapper.reducer = None
        wrapper.logger = None
        parameters, sparse = wrapper._build_params_for_reducer()
        names = wrapper._build_debug_param_to_name_mapping(parameters)
        wrapper._ddp_init_helper(parameters, sparse, names, wrapper.static_graph)
        if wrapper.static_graph:
            wrapper.static_graph = False  # else it takes the new reducer for one that knows already
            wrapper._set_static_graph()
        for hook, state in getattr(wrapper, "_comm_hooks", ()):
            distributed._register_comm_hook(wrapper.reducer, state, hook)


def _distributed(model: nn.Module) -> list[Any]:
    """Return the distributed wrappers in ``model``, and those around it where it was cut from within."""
    distributed = nn.parallel.DistributedDataParallel
    found = [module for module in model.modules() if isinstance(module, distributed)]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        own = {id(module) for module in model.modules()}
        # By type, not isinstance: some objects answer that by importing or loading something.
        around = [each for each in gc.get_objects() if issubclass(type(each), distributed)]
        found += [
            each
            for each in around
            if each not in found and any(id(inner) in own for inner in each.modules())
        ]
    return found
