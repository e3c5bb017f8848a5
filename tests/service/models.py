"""Real models as files, made once a process."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torchvision


@dataclass(frozen=True)
class ModelFile:
    """A file's bytes, the module it came from, its input as a tensor and in short form."""

    content: bytes
    module: Any
    example: Any
    inputs: tuple[str, ...]


def torchscript_of(module: Any, example: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module, example), buffer)
    return buffer.getvalue()


def onnx_of(module: Any, example: Any) -> bytes:
    """The file that the TorchScript exporter makes, as a person would: names kept, nothing folded."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            buffer,
            dynamo=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            input_names=["x"],
        )
    return buffer.getvalue()


def torchvision_model(name: str, size: int = 64) -> tuple[Any, Any]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    if name == "inception_v3":
        options = {"aux_logits": False, "init_weights": False}
    module = getattr(torchvision.models, name)(weights=None, **options).eval()
    return module, torch.zeros(1, 3, size, size)


@lru_cache(maxsize=1)
def resnet18_torchscript() -> ModelFile:
    module, example = torchvision_model("resnet18")
    return ModelFile(torchscript_of(module, example), module, example, ("x:1x3x64x64:float32",))


@lru_cache(maxsize=1)
def resnet18_onnx() -> ModelFile:
    module, example = torchvision_model("resnet18")
    return ModelFile(onnx_of(module, example), module, example, ())


class Small(torch.nn.Module):
    """Two convolutions with a batch norm between; a few kilobytes, built in an instant."""

    def __init__(self, seed: int = 0, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1 = torch.nn.Conv2d(3, width, 3, padding=1)
        self.bn = torch.nn.BatchNorm2d(width)
        self.conv2 = torch.nn.Conv2d(width, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(torch.relu(self.bn(self.conv1(x))))


@lru_cache(maxsize=64)
def small_file(seed: int = 0, width: int = 8) -> ModelFile:
    """A small model; another seed gives other bytes, and so would saving the same one again."""
    module = Small(seed, width).eval()
    example = torch.zeros(1, 3, 8, 8)
    return ModelFile(torchscript_of(module, example), module, example, ("x:1x3x8x8",))
