"""One family of operators a file; importing the package registers all of them."""

from torchpruner_core.operators import (  # noqa: F401  (imported to register their operators)
    convolution,
    elementwise,
    matmul,
    normalization,
    padding,
    pooling,
    recurrent,
    reduction,
    reshaping,
    selection,
)
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.mask import Mask
from torchpruner_core.operators.registry import operator_reg, operator_register

__all__ = ["Mask", "OperatorNode", "operator_reg", "operator_register"]
