"""Every model of torchvision, the quantised ones excepted (their weights are not tensors)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.zoo.specimen import Entrance, Inputs, Specimen, clip, image

SIZES = {"inception_v3": 96, "swin": 128, "maxvit_t": 224, "alexnet": 96}
"""Image sizes other than 64 pixels, where a model needs more or its windows shift only then."""

CLIPS = {
    "mvit": (16, 224),
    "swin3d": (4, 64),
    "s3d": (16, 224),
}

DETECTION = {
    "ssd300": {"size": 300},
    "ssdlite320": {"size": 320},
}


LARGE = re.compile(
    r"large$|_[lhb](_|$)|_m$|_s$|_small$|base$|101|152|161|169|201|34|vgg|alexnet|wide|[0-9]gf|_b[2-7]|1_3|_x[12]_|x0_75"
)
"""Larger variants of an architecture, which come last: then a run cut short has seen each kind."""


def specimens() -> Iterator[Specimen]:
    """Yield one specimen a model: the small ones of each architecture first."""
    from torchvision import models

    for name in sorted(models.list_models(), key=lambda name: bool(LARGE.search(name))):
        if name.startswith("quantized_"):
            continue
        package = models.get_model_builder(name).__module__.split(".")
        kind = package[2] if len(package) > 3 or package[2] in _KINDS else "classification"
        yield _specimen(name, kind)


_KINDS = ("detection", "segmentation", "video", "optical_flow")


def _specimen(name: str, kind: str) -> Specimen:
    if kind == "detection":
        return Specimen(name, "torchvision/detection", partial(_detector, name))
    if kind == "video":
        return Specimen(name, "torchvision/video", partial(_video, name))
    if kind == "optical_flow":
        return Specimen(name, "torchvision/optical flow", partial(_flow, name))
    if kind == "segmentation":
        return Specimen(name, "torchvision/segmentation", partial(_segmenter, name))
    # Deep convolutional networks take the TorchScript entrance, transformers the other one.
    attends = name.startswith(("vit", "swin", "maxvit", "convnext"))
    entrance: Entrance = "module" if attends else "torchscript"
    return Specimen(name, "torchvision/classification", partial(_classifier, name), entrance)


def _by_prefix(table: dict[str, Any], name: str, default: Any) -> Any:
    return next((value for prefix, value in table.items() if name.startswith(prefix)), default)


def _make(name: str, **options: Any) -> nn.Module:
    from torchvision import models

    torch.manual_seed(0)
    model: nn.Module = models.get_model(name, weights=None, **options)
    return model.eval()


def _classifier(name: str) -> tuple[nn.Module, Inputs]:
    options: dict[str, Any] = {}
    if name in ("inception_v3", "googlenet"):
        options = {"init_weights": False, "aux_logits": False}
    if name.startswith("vit"):
        size = 56 if name.endswith("14") else 64
        return _make(name, image_size=size), image(size)
    return _make(name, **options), image(_by_prefix(SIZES, name, 64))


def _segmenter(name: str) -> tuple[nn.Module, Inputs]:
    return _make(name, weights_backbone=None), image(64)


def _video(name: str) -> tuple[nn.Module, Inputs]:
    frames, size = _by_prefix(CLIPS, name, (8, 64))
    return _make(name), clip(frames, size)


def _flow(name: str) -> tuple[nn.Module, Inputs]:
    return _Last(_make(name)), (*image(128), *image(128))


def _detector(name: str) -> tuple[nn.Module, Inputs]:
    options = dict(_by_prefix(DETECTION, name, {"min_size": 128, "max_size": 128}))
    size = options.pop("size", 128)
    if not name.startswith("ssd"):
        options["rpn_post_nms_top_n_test" if "rcnn" in name else "detections_per_img"] = 20
    model = _make(name, weights_backbone=None, **options)
    return Detector(model), (
        torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)),
    )


class _Last(nn.Module):
    """Optical flow after the last of a few iterations."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        flow: torch.Tensor = self.model(first, second, num_flow_updates=2)[-1]
        return flow


class Detector(nn.Module):
    """A detector as a function of one batch, returning its heads' maps beside its detections.

    Which boxes survive jumps with the last bit of a score, so the maps are what can be compared.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        maps: list[torch.Tensor] = []
        model: Any = self.model
        head = model.head if hasattr(model, "head") else model.rpn.head
        handle = head.register_forward_hook(lambda _module, _args, out: maps.extend(_tensors(out)))
        try:
            detections = self.model([images[0]])
        finally:
            handle.remove()
        return [*maps, *_tensors(detections)]


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [tensor for part in parts for tensor in _tensors(part)]
