"""Batch norms whose running statistics are estimated anew.

Source: Li et al. 2020 (EagleEye), https://arxiv.org/abs/2007.02491.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from torchpruner_core.calibration.as_found import as_found
from torchpruner_core.pruning.tensors.targets import LocalModel

STATISTICS = ("running_mean", "running_var")


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a model that normalise by running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and module.track_running_stats
        and module.running_mean is not None
    ]


def estimate(model: nn.Module, run: Callable[[], object]) -> dict[str, torch.Tensor]:
    """Return new running statistics by name, averaged over the batches that ``run`` sends through.

    The model is as before afterwards; norms that no batch reaches are left out.
    """
    norms = batch_norms(model)
    names = LocalModel(model).names
    found: dict[str, torch.Tensor] = {}
    with as_found(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over all batches
            norm.train()
        run()
        for norm in norms:
            if norm.num_batches_tracked is None or not int(norm.num_batches_tracked):
                continue
            for statistic in STATISTICS:
                buffer = getattr(norm, statistic)
                found[names[id(buffer)][0]] = buffer.detach().clone()
    return found
