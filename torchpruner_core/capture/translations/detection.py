"""Boxes: which overlap, what a feature map holds inside them, and which classes occur.

Sources: https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html, onnx__RoiAlign.html, onnx__Unique.html
"""

from __future__ import annotations

from typing import Any

import torch

from torchpruner_core.capture.registry import aten, register_translation
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer


@register_translation("torchvision::nms")
def suppressed(g: Writer, call: Call, boxes: Value, scores: Value, threshold: float) -> str:
    count = boxes.shape[0]
    found = g.op(
        "NonMaxSuppression",
        g.op("Unsqueeze", g.operand(boxes, torch.float32), g.ints([0])),
        g.op("Unsqueeze", g.operand(scores, torch.float32), g.ints([0, 1])),
        g.ints([count]),
        g.tensor(torch.tensor([threshold], dtype=torch.float32)),
        shape=(*call.out.shape, 3),
        dtype=torch.int64,
    )
    return g.op("Gather", found, g.ints(2), axis=1)  # batch, class, box


@register_translation("torchvision::roi_align")
def pooled_regions(
    g: Writer,
    call: Call,
    x: Value,
    rois: Value,
    scale: float,
    height: int,
    width: int,
    ratio: int = -1,
    aligned: bool = False,
) -> str:
    boxes = g.op(
        "Slice",
        rois,
        g.ints([1]),
        g.ints([5]),
        g.ints([1]),
        shape=(rois.shape[0], 4),
        dtype=rois.dtype,
    )
    which = g.op("Gather", rois, g.ints(0), axis=1, shape=rois.shape[:1], dtype=rois.dtype)
    return g.op(
        "RoiAlign",
        x,
        boxes,
        g.cast(which, torch.int64, was=rois.dtype),
        spatial_scale=float(scale),
        output_height=height,
        output_width=width,
        sampling_ratio=max(ratio, 0),
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )


@register_translation("torchvision::deform_conv2d")
def deformable(
    g: Writer,
    call: Call,
    x: Value,
    weight: Value,
    offset: Value,
    mask: Value,
    bias: Value,
    *rest: Any,
) -> str:
    stride, padding, dilation = rest[0:2], rest[2:4], rest[4:6]
    groups, offset_groups, masked = rest[6:9]
    return g.op(
        "DeformConv",
        x,
        weight,
        offset,
        bias,
        mask if masked else None,
        kernel_shape=weight.shape[2:],
        strides=list(stride),
        pads=[*padding, *padding],
        dilations=list(dilation),
        group=groups,
        offset_group=offset_groups,
    )


@aten("_unique2")
def unique(
    g: Writer,
    call: Call,
    x: Value,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
) -> list[str | None]:
    count = call.outputs[0].shape
    flat = (x.shape[0] if x.rank == 1 else -1,)
    types = [(count, x.dtype), (count, torch.int64), (flat, torch.int64), (count, torch.int64)]
    values, _, inverse, counts = g.ops("Unique", x, outputs=4, sorted=1, types=types)
    shaped: str | None = None
    if return_inverse:
        shaped = inverse if x.rank == 1 else g.op("Reshape", inverse, g.ints(list(x.shape)))
    return [values, shaped, counts if return_counts else None]
