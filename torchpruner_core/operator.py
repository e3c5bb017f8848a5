"""The manual's ``torchpruner.operator``: the operator base class, the register, the families."""

from torchpruner_core import onnx_operator
from torchpruner_core.graph.mask import Mask
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.registry import operator_reg, operator_register

__all__ = ["Mask", "OperatorNode", "onnx_operator", "operator_reg", "operator_register"]
