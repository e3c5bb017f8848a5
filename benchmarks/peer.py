"""Torch-Pruning through its public API, as its own documentation uses it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

ROOTS: list[type[nn.Module]] = [nn.Conv2d, nn.Linear]


def build(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    """Trace the model and build its dependency graph."""
    import torch_pruning

    return torch_pruning.DependencyGraph().build_dependency(model, inputs)


def all_groups(graph: Any) -> int:
    """Enumerate every group; return how many there are."""
    return sum(1 for _ in graph.get_all_groups(root_module_types=ROOTS))


def one_group(graph: Any, module: nn.Module, index: list[int]) -> Any:
    """What goes with output channels ``index`` of ``module``."""
    import torch_pruning

    if isinstance(module, nn.Linear):
        pruning_fn = torch_pruning.prune_linear_out_channels
    else:
        pruning_fn = torch_pruning.prune_conv_out_channels
    return graph.get_pruning_group(module, pruning_fn, idxs=index)
