"""The peer: what onnxsim's ``apply_structured_pruning`` makes of the same file, at half of each layer."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import onnx

from benchmarks.zoo import onnx_check


def halve(data: bytes, feeds: Any) -> dict[str, Any]:
    """Return whether the peer's pruned model runs, and how many stored numbers it removed.

    ``state`` is ``"equal"`` where it runs and something was removed: what it computes is not compared,
    as it chooses its own channels.
    """
    from onnxsim import apply_structured_pruning  # type: ignore[import-untyped]

    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            pruned = apply_structured_pruning(onnx.load_model_from_string(data), sparsity=0.5)
        onnx_check.run(pruned.SerializeToString(), feeds)
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0][:200]
        return {"state": f"{type(error).__name__}: {text}", "removed": 0}
    removed = _stored(onnx.load_model_from_string(data)) - _stored(pruned)
    return {"state": "equal" if removed > 0 else "nothing removed", "removed": max(removed, 0)}


def _stored(model: onnx.ModelProto) -> int:
    """Return how many numbers a model stores, in initializers and ``Constant`` operators, bodies too."""
    total, pending = 0, [model.graph]
    while pending:
        graph = pending.pop()
        total += sum(_count(tensor.dims) for tensor in graph.initializer)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                elif node.op_type == "Constant" and attribute.HasField("t"):
                    total += _count(attribute.t.dims)
    return total


def _count(dims: Any) -> int:
    total = 1
    for size in dims:
        total *= size
    return total
