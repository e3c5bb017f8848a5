"""Convolutions and linear layers: channels and features are the weight's sizes."""

from __future__ import annotations

from typing import Any

from torch import nn

from torchpruner_core.errors import ModulePrunerError
from torchpruner_core.pruning.module_pruners.base import BasePruner, LayerChange


class ConvPruner(BasePruner):
    """``Conv1d`` to ``Conv3d``: weight ``(out, in / groups, *kernel)``."""

    transposed = False

    def attributes(self, nn_module: nn.Module, change: LayerChange) -> dict[str, Any]:
        weight = change.after.get("weight")
        if weight is None:
            return {}
        groups = _groups(self.name, nn_module, change)
        if self.transposed:
            inputs, outputs = weight[0], weight[1] * groups
        else:
            inputs, outputs = weight[1] * groups, weight[0]
        if outputs % groups and not change.operators:
            # Another module runs a convolution with this one's weight, and counts its groups.
            groups = _depthwise_groups(nn_module, outputs, groups)
            inputs = weight[1] * groups
        bias = change.after.get("bias", (outputs,))
        if inputs % groups or outputs % groups or bias != (outputs,):
            raise ModulePrunerError(
                f"{self.name} would have {inputs} input and {outputs} output channels, {bias[0]} "
                f"biases and {groups} groups, which is no convolution: the cut's change of 'group' "
                "does not fit its indices",
                module=self.name,
                operator=", ".join(change.operators),
                expected=f"channels divisible by {groups}",
                received=[inputs, outputs],
            )
        return {"groups": groups, "in_channels": inputs, "out_channels": outputs}


class ConvTransposePruner(ConvPruner):
    """``ConvTranspose1d`` to ``ConvTranspose3d``: weight ``(in, out / groups, *kernel)``."""

    transposed = True


def _groups(name: str, nn_module: Any, change: LayerChange) -> int:
    groups: int = nn_module.groups - change.subtract("group")
    if groups < 1:
        raise ModulePrunerError(
            f"{name} has {nn_module.groups} groups and the cut removes {change.subtract('group')}",
            module=name,
            constant="group",
            expected=f"at most {nn_module.groups - 1}",
            received=change.subtract("group"),
        )
    return groups


def _depthwise_groups(nn_module: Any, outputs: int, groups: int) -> int:
    """Return the groups of a depthwise convolution with ``outputs`` channels left."""
    each = nn_module.out_channels // nn_module.groups
    depthwise = nn_module.in_channels == nn_module.groups and outputs % each == 0
    return outputs // each if depthwise else groups


class LinearPruner(BasePruner):
    """``Linear``: weight ``(out_features, in_features)``."""

    def attributes(self, nn_module: nn.Module, change: LayerChange) -> dict[str, Any]:
        weight = change.after.get("weight")
        if weight is None:
            return {}
        return {"out_features": weight[0], "in_features": weight[1]}


class BilinearPruner(BasePruner):
    """``Bilinear``: weight ``(out_features, in1_features, in2_features)``."""

    def attributes(self, nn_module: nn.Module, change: LayerChange) -> dict[str, Any]:
        weight = change.after["weight"]
        return {"out_features": weight[0], "in1_features": weight[1], "in2_features": weight[2]}
