"""Structured pruning of any neural network: what else must go, and what does it save?

The public names below are imported where they are first used, so ``import torchpruner_core``
imports neither torch nor onnx nor onnxruntime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "CutResult": "cut_result",
    "CutRequest": "cut_result",
    "Choice": "cut_result",
    "TensorSpec": "cut_result",
    "TorchPrunerError": "errors",
    "SolvedGraph": "analysis.solved_graph",
    "Group": "analysis.groups",
    "ONNXGraph": "graph.onnx_graph",
    "DataNode": "graph.nodes",
    "OperatorNode": "operators.base",
    "Mask": "operators.mask",
    "Module": "graph.nodes",
    "solve_onnx": "graph.solving",
    "export_onnx": "exporting",
    "strip_weights": "exporting.wire",
    "operator_register": "operators.registry",
    "operator_reg": "operators.registry",
    "prune_onnx": "onnx_pruning",
    "masked_onnx": "onnx_pruning",
}

_MODULES = ("errors",)

__all__ = sorted([*_PUBLIC, *_MODULES])

if TYPE_CHECKING:
    from torchpruner_core.cut_result import Choice as Choice
    from torchpruner_core.cut_result import CutRequest as CutRequest
    from torchpruner_core.cut_result import CutResult as CutResult
    from torchpruner_core.cut_result import TensorSpec as TensorSpec
    from torchpruner_core.errors import TorchPrunerError as TorchPrunerError


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
