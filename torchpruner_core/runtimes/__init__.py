"""What models are timed on, for budgets of latency."""

from torchpruner_core.runtimes.onnx_runtime import OnnxRuntime

__all__ = ["OnnxRuntime"]
