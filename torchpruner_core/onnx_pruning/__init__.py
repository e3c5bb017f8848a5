"""ONNX models after a cut: pruned for real, and masked as the reference to compare with."""

from torchpruner_core.onnx_pruning.in_files import prune_onnx_file
from torchpruner_core.onnx_pruning.magnitudes import onnx_magnitudes
from torchpruner_core.onnx_pruning.masked import masked_onnx
from torchpruner_core.onnx_pruning.prune import prune_onnx

__all__ = ["masked_onnx", "onnx_magnitudes", "prune_onnx", "prune_onnx_file"]
