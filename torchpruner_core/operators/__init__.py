"""One family of operators a file; importing the package registers all of them."""

from torchpruner_core.graph.mask import Mask
from torchpruner_core.operators import (  # noqa: F401  (imported to register their operators)
    attention,
    control_flow,
    convolution,
    elementwise,
    indexing,
    matmul,
    normalization,
    onnxruntime,
    onnxruntime_attention,
    onnxruntime_opaque,
    onnxruntime_quantized,
    opaque,
    padding,
    pooling,
    quantization,
    recurrent,
    reduction,
    reshaping,
    sampling,
    selection,
    transforms,
)
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.registry import operator_reg, operator_register

__all__ = ["Mask", "OperatorNode", "operator_reg", "operator_register"]
