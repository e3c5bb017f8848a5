"""The models that the benchmarks measure, built with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Case:
    """A model to measure; ``build`` returns it in evaluation mode with its example inputs.

    ``build_ratio`` is how many times faster than the peer the whole enumeration must be, from the
    ONNX file; ``module_ratio`` is that from the ``nn.Module`` itself.
    """

    name: str
    build: Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]
    build_ratio: float = 1.0
    build_ratio_weightless: float = 1.0
    seconds: float | None = None
    module_ratio: float = 1.0


def torchvision_case(name: str, **targets: float) -> Case:
    """A torchvision classifier at 224 x 224."""

    def build() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
        import torchvision

        torch.manual_seed(0)
        model: nn.Module = getattr(torchvision.models, name)()
        return model.eval(), (torch.rand(1, 3, 224, 224),)

    return Case(name, build, **targets)


def llama(
    layers: int, hidden: int = 1024, heads: int = 16, key_value_heads: int = 4
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A Llama with grouped-query attention; the head size is ``hidden / heads``."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=1000,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        use_cache=False,
    )
    torch.manual_seed(0)
    return TokensToLogits(transformers.LlamaForCausalLM(config).eval()), (
        torch.arange(16).reshape(1, 16),
    )


class TokensToLogits(nn.Module):
    """A causal model as a function of one tensor: what both exporters and the peer want."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=tokens).logits
        return logits


CASES: tuple[Case, ...] = (
    torchvision_case("resnet18"),
    torchvision_case("resnet50", build_ratio=3.0, build_ratio_weightless=5.0, module_ratio=1.5),
    torchvision_case("mobilenet_v3_small"),
    torchvision_case("mobilenet_v3_large"),
    torchvision_case("regnet_y_400mf"),
    torchvision_case("densenet121"),
    torchvision_case(
        "densenet201", build_ratio=100.0, build_ratio_weightless=100.0, module_ratio=10.0
    ),
    torchvision_case("vit_b_16", module_ratio=1.5),
    torchvision_case("convnext_tiny"),
    torchvision_case("swin_t", module_ratio=10.0),
    Case("llama_gqa_16x1024", lambda: llama(16), seconds=0.5),
)


def constant_inputs(*shape: int) -> tuple[torch.Tensor, ...]:
    """One input of a shape, where its numbers do not matter."""
    return (torch.zeros(shape),)
