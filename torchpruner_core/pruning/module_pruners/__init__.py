"""Module pruners: how each class of module follows a cut.

``module_pruner_reg.regist(cls, pruner)`` adds one; subclasses of a registered class inherit it. See
:mod:`torchpruner_core.pruning.module_pruners.base` for the two ways to write a pruner.
"""

from __future__ import annotations

import torch
from torch import nn

from torchpruner_core.pruning.module_pruners.attention import (
    MultiheadAttentionPruner,
    PrunedMultiheadAttention,
)
from torchpruner_core.pruning.module_pruners.base import (
    BasePruner,
    LayerChange,
    ParameterPruner,
    TensorPruner,
    layer_change,
)
from torchpruner_core.pruning.module_pruners.convolution import (
    BilinearPruner,
    ConvPruner,
    ConvTransposePruner,
    LinearPruner,
)
from torchpruner_core.pruning.module_pruners.embedding import EmbeddingPruner
from torchpruner_core.pruning.module_pruners.normalization import (
    ChannelNormPruner,
    GroupNormPruner,
    LayerNormPruner,
    PReLUPruner,
)
from torchpruner_core.pruning.module_pruners.recurrent import RNNCellPruner, RNNPruner
from torchpruner_core.pruning.module_pruners.registry import ModulePrunerRegister, module_pruner_reg
from torchpruner_core.pruning.tensors.slices import (
    RemovedSlices,
    recovery_cut_tensor,
    recovery_zero_tensor,
    set_cut_tensor,
    set_zero_tensor,
)

__all__ = [
    "BasePruner",
    "BilinearPruner",
    "ChannelNormPruner",
    "ConvPruner",
    "ConvTransposePruner",
    "EmbeddingPruner",
    "GroupNormPruner",
    "LayerChange",
    "LayerNormPruner",
    "LinearPruner",
    "ModulePrunerRegister",
    "MultiheadAttentionPruner",
    "PReLUPruner",
    "ParameterPruner",
    "PrunedMultiheadAttention",
    "RNNCellPruner",
    "RNNPruner",
    "RemovedSlices",
    "TensorPruner",
    "layer_change",
    "module_pruner_reg",
    "recovery_cut_tensor",
    "recovery_zero_tensor",
    "set_cut_tensor",
    "set_zero_tensor",
]

_BUILT_IN: dict[type[BasePruner], tuple[type, ...]] = {
    TensorPruner: (torch.Tensor,),
    ParameterPruner: (nn.Parameter,),
    ConvPruner: (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    ConvTransposePruner: (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    LinearPruner: (nn.Linear,),
    BilinearPruner: (nn.Bilinear,),
    ChannelNormPruner: (
        nn.BatchNorm1d,
        nn.BatchNorm2d,
        nn.BatchNorm3d,
        nn.SyncBatchNorm,
        nn.InstanceNorm1d,
        nn.InstanceNorm2d,
        nn.InstanceNorm3d,
    ),
    LayerNormPruner: (nn.LayerNorm, nn.RMSNorm),
    GroupNormPruner: (nn.GroupNorm,),
    PReLUPruner: (nn.PReLU,),
    EmbeddingPruner: (nn.Embedding, nn.EmbeddingBag),
    RNNPruner: (nn.LSTM, nn.GRU, nn.RNN),
    RNNCellPruner: (nn.LSTMCell, nn.GRUCell, nn.RNNCell),
    MultiheadAttentionPruner: (nn.MultiheadAttention,),
}
for _pruner, _classes in _BUILT_IN.items():
    for _cls in _classes:
        module_pruner_reg.regist(_cls, _pruner)
