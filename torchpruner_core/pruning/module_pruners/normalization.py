"""Normalisations and other layers with one value a channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from torchpruner_core.errors import ModulePrunerError
from torchpruner_core.pruning.module_pruners.base import BasePruner, LayerChange


class ChannelNormPruner(BasePruner):
    """Batch and instance norm: ``num_features`` is the length of any of their tensors."""

    def attributes(self, nn_module: nn.Module, change: LayerChange) -> dict[str, Any]:
        for attribute in ("weight", "running_mean", "bias"):
            if attribute in change.after:
                return {"num_features": change.after[attribute][0]}
        return {}

    def follow_input(self, nn_module: Any, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the attributes of a layer without tensors, from the input it now receives."""
        batched = len(shape) > getattr(nn_module, "_get_no_batch_dim", lambda: 1)()
        return {"num_features": shape[1] if batched else shape[0]}


class LayerNormPruner(BasePruner):
    """``LayerNorm`` and ``RMSNorm``: ``normalized_shape`` is the weight's shape."""

    def attributes(self, nn_module: nn.Module, change: LayerChange) -> dict[str, Any]:
        if "weight" in change.after:
            return {"normalized_shape": tuple(change.after["weight"])}
        return {}

    def follow_input(self, nn_module: Any, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the attributes of a layer without tensors, from the input it now receives."""
        return {"normalized_shape": shape[len(shape) - len(nn_module.normalized_shape) :]}


class GroupNormPruner(BasePruner):
    """``GroupNorm``: whole groups may go, or as many channels from each group."""

    def attributes(self, nn_module: Any, change: LayerChange) -> dict[str, Any]:
        if "weight" not in change.after:
            return {}
        channels, groups = change.before["weight"][0], nn_module.num_groups
        left = groups
        gone = change.indices("weight", 0)
        if len(gone):
            a_group = np.bincount(gone // (channels // groups), minlength=groups)
            # A group of one channel is a whole group and one channel of each at once.
            touched = a_group[a_group > 0]
            if np.all(touched == channels // groups):
                left = groups - len(touched)
            elif len(touched) != groups or np.any(touched != touched[0]):
                raise ModulePrunerError(
                    f"{self.name} has {groups} groups of {channels // groups} channels, and the cut "
                    f"takes {a_group.tolist()} channels from them: take whole groups, or as many "
                    "from each",
                    module=self.name,
                    axis=0,
                    expected="equal counts",
                    received=a_group.tolist(),
                )
        return {"num_channels": change.after["weight"][0], "num_groups": left}

    def follow_input(self, nn_module: Any, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the attributes of a layer without tensors, from the input it now receives."""
        return {"num_channels": shape[1]}


class PReLUPruner(BasePruner):
    """``PReLU``: ``num_parameters`` is the weight's length, 1 where all channels share it."""

    def attributes(self, nn_module: nn.Module, change: LayerChange) -> dict[str, Any]:
        return {"num_parameters": change.after["weight"][0]}
