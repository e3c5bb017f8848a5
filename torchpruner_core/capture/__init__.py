"""An ``nn.Module`` to ONNX in the time of one forward pass.

:mod:`.recorder` sees what a run does, :mod:`.translations` say what each operator means in ONNX.
"""

from torchpruner_core.capture.registry import register_translation

__all__ = ["register_translation"]
