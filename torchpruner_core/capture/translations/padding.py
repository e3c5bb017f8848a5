"""Padding. Source: https://onnx.ai/onnx/operators/onnx__Pad.html"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer


def _pads(x: Value, pad: Sequence[int]) -> list[int]:
    """Return PyTorch's pads (last axis first, in pairs) as ONNX's: all starts, then all ends."""
    starts, ends = [0] * x.rank, [0] * x.rank
    for k in range(len(pad) // 2):
        starts[x.rank - 1 - k], ends[x.rank - 1 - k] = int(pad[2 * k]), int(pad[2 * k + 1])
    return starts + ends


@aten("constant_pad_nd")
def constant_pad(g: Writer, call: Call, x: Value, pad: Sequence[int], value: Any = 0) -> str:
    if not any(pad):
        return g.name(x)
    return g.op("Pad", x, g.ints(_pads(x, pad)), g.scalar(value, x.dtype), mode="constant")


def _mode(mode: str) -> Any:
    def translate(g: Writer, call: Call, x: Value, pad: Sequence[int]) -> str:
        return g.op("Pad", x, g.ints(_pads(x, pad)), mode=mode)

    return translate


for _dims in (1, 2, 3):
    aten(f"reflection_pad{_dims}d")(_mode("reflect"))
    aten(f"replication_pad{_dims}d")(_mode("edge"))
