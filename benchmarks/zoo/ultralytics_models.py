"""YOLO networks, built from ultralytics' yaml files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.zoo.specimen import Inputs, Specimen, image

NAMES = (
    "yolov8n", "yolov8n-seg", "yolov8n-pose", "yolov8n-cls", "yolo11n", "yolo11n-seg", "yolo11n-cls",
)  # fmt: skip


def specimens() -> Iterator[Specimen]:
    """Yield detectors, and variants with other heads."""
    for name in NAMES:
        yield Specimen(name, "ultralytics", partial(_build, name))


def _build(name: str) -> tuple[nn.Module, Inputs]:
    import ultralytics

    torch.manual_seed(0)
    made: Any = ultralytics
    model: nn.Module = made.YOLO(f"{name}.yaml", verbose=False).model
    # The detection head keeps the anchors of the first image size it sees.
    return model.eval(), image(64)
