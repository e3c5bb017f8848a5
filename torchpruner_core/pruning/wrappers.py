"""Wrappers that keep something about their parameters' shapes beside them."""

from __future__ import annotations

from typing import Any

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

    Their reducer holds the gradient accumulators of the parameters, which know the old shapes.
    Every process must make the same cut.
    """
    for wrapper in _distributed(model):
        wrapper.reducer = None
        wrapper.logger = None
        parameters, sparse = wrapper._build_params_for_reducer()
        names = wrapper._build_debug_param_to_name_mapping(parameters)
        wrapper._ddp_init_helper(parameters, sparse, names, wrapper.static_graph)


def _distributed(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, nn.parallel.DistributedDataParallel)]
