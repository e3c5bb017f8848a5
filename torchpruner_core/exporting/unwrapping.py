"""Wrappers that only forward to one module, and the module that holds the parameters inside."""

from __future__ import annotations

import torch
from torch import nn

from torchpruner_core.errors import UnsupportedModuleError
from torchpruner_core.exporting.sharded import is_sharded

WRAPPERS = (
    nn.DataParallel,
    nn.parallel.DistributedDataParallel,
    torch.optim.swa_utils.AveragedModel,
)
"""Modules that forward to the one they hold under the name ``module``."""


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module that holds the parameters under their own names.

    Raises :class:`UnsupportedModuleError` for what cannot be cut in place: TorchScript and
    fully sharded models.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModuleError(
            f"set_cut works on a torch.nn.Module, not {type(model).__name__}",
            expected="torch.nn.Module",
            received=type(model).__name__,
        )
    while True:
        kind = type(model).__name__
        if isinstance(model, torch.jit.ScriptModule):
            raise UnsupportedModuleError(
                f"{kind} is a compiled program whose constants cannot change: cut the nn.Module it was "
                "made from, or ask the service for a pruned ONNX model"
            )
        if kind in ("FullyShardedDataParallel", "XlaFullyShardedDataParallel"):
            raise UnsupportedModuleError(
                f"{kind} keeps its parameters flattened and sharded: cut the model before wrapping it"
            )
        if isinstance(model, WRAPPERS):
            model = model.module
            continue
        compiled = model._modules.get("_orig_mod")
        if compiled is None:
            if is_sharded(model.parameters()):
                raise UnsupportedModuleError(
                    f"the parameters of {kind} are sharded by fully_shard: cut the model before that, with "
                    "this very result, and shard it then"
                )
            return model
        model = compiled  # the compiled code's guards see the new shapes, and it compiles again
