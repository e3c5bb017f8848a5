"""All specimens, and the sample of them that the tests run."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.zoo import (
    adversarial,
    recurrent_models,
    timm_models,
    torchvision_models,
    transformers_further,
    transformers_models,
    ultralytics_models,
    wild,
)
from benchmarks.zoo.specimen import Specimen
from benchmarks.zoo.wild.wild_file import WildFile

SOURCES = (
    adversarial,
    recurrent_models,
    transformers_models,
    transformers_further,
    ultralytics_models,
    timm_models,
    torchvision_models,
)


def with_files() -> Iterator[Specimen | WildFile]:
    """Yield every specimen of every source, then the files of the family ``wild``."""
    yield from every()
    yield from wild.files()


def every() -> Iterator[Specimen]:
    """Yield every specimen of every source."""
    for source in SOURCES:
        yield from source.specimens()


SAMPLE = (
    "recurrent/LSTM one layer",
    "recurrent/LSTM two layers, both directions",
    "recurrent/GRU over a convolution",
    "recurrent/RNN two layers, both directions",
    "torch.nn/TransformerEncoder",
    "torch.nn/TransformerDecoder",
    "transformers/BertModel",
    "transformers/DebertaV2Model",
    "transformers/GPT2LMHeadModel",
    "transformers/LlamaForCausalLM",
    "transformers/Qwen3ForCausalLM",
    "transformers/FalconForCausalLM",
    "transformers/T5ForConditionalGeneration",
    "transformers/BartForConditionalGeneration",
    "transformers/MambaForCausalLM",
    "transformers/ViTModel",
    "transformers/SwinModel",
    "transformers/BeitModel",
    "transformers/ModernBertModel",
    "torch.nn/Transformer",
    "timm/byobnet/test_byobnet",
    "timm/convnext/convnextv2_atto",
    "timm/mambaout/test_mambaout",
    "timm/mobilevit/mobilevitv2_050",
    "timm/deit/deit_tiny_distilled_patch16_224",
    "timm/regnet/regnety_002",
    "timm/vision_transformer/test_vit2",
    "timm/vision_transformer/test_vit4",
    "timm/resnet/test_resnet",
    "timm/starnet/starnet_s050",
    "timm/vision_transformer/test_vit",
    "timm/vision_transformer_relpos/test_vit_relpos",
    "torchvision/classification/mobilenet_v2",
    "torchvision/classification/resnet18",
    "torchvision/classification/efficientnet_b0",
    "torchvision/classification/squeezenet1_1",
    "transformers/ResNetModel",
)
"""``family/name`` of the specimens that the tests examine: small, and of every kind."""


def sample() -> list[Specimen]:
    """Return the specimens of :data:`SAMPLE`, in that order."""
    by_name = {f"{specimen.family}/{specimen.name}": specimen for specimen in every()}
    return [by_name[name] for name in SAMPLE]
