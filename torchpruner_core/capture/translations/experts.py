"""Products in groups of rows, as mixtures of experts compute them."""

from __future__ import annotations

from typing import Any

import torch

from torchpruner_core.capture.errors import CaptureError
from torchpruner_core.capture.registry import register_translation
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer


@register_translation("aten::_grouped_mm", "transformers::grouped_mm_fallback")
def grouped_product(
    g: Writer,
    call: Call,
    x: Value,
    weight: Value,
    ends: Value | None = None,
    bias: Any = None,
    out_dtype: Any = None,
    offs: Value | None = None,
) -> str:
    """Rows up to ``ends[k]`` are multiplied with matrix ``k``: each row with the matrix of its group."""
    ends = offs if ends is None else ends
    if ends is None or x.rank != 2 or weight.rank != 3:
        raise CaptureError("a grouped product of this layout has no ONNX operators")
    rows = g.tensor(torch.arange(x.shape[0]).reshape(-1, 1))
    before = g.op("GreaterOrEqual", rows, g.operand(ends, torch.int64))
    group = g.op("ReduceSum", g.op("Cast", before, to=7), g.ints([1]), keepdims=0)
    last = g.op("Min", group, g.ints(weight.shape[0] - 1))  # rows behind the last group
    chosen = g.op("Gather", weight, last, axis=0)
    product = g.op("MatMul", g.op("Unsqueeze", x, g.ints([1])), chosen)
    return g.op("Squeeze", product, g.ints([1]))
