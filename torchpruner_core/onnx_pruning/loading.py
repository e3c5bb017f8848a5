"""Is a pruned model valid, and does it load? What the checker or a runtime refuses is not handed out."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from torchpruner_core.errors import GraphError


def check_valid(pruned: bytes | Path) -> None:
    """Raise ``GraphError`` where ``onnx.checker`` refuses a pruned model."""
    import onnx

    try:
        onnx.checker.check_model(pruned)
    except onnx.checker.ValidationError as error:
        raise GraphError(
            f"the pruned model is not valid ONNX: {str(error).splitlines()[0]}"
        ) from error


def check_loads(pruned: bytes | Path, original: bytes | Path) -> None:
    """Load a pruned model in onnxruntime, where it is installed.

    Raises ``GraphError`` where it does not load, unless the model that it was cut from does not
    either: of operators that this runtime lacks, nothing can be said.
    """
    if find_spec("onnxruntime") is None:
        return
    reason = _refusal(pruned)
    if reason is not None and _refusal(original) is None:
        raise GraphError(
            f"onnxruntime does not load the pruned model, and it loads the original: {reason}. This is "
            "a fault of the analysis; please report it with the model and the cut"
        )


def _refusal(model: bytes | Path) -> str | None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return str(error).strip().splitlines()[0][:300]
    return None
