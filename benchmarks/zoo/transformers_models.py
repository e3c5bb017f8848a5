"""transformers: encoders, decoders, encoder-decoders, vision, audio and state-space models.

All have random weights and small configs; caches are off, since an exported program has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.zoo.specimen import Inputs, Specimen

Options = dict[str, Any]

BERT: Options = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 100,
}
LLAMA: Options = {
    **BERT,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "use_cache": False,
}
MOE: Options = {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}
BART: Options = {
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "vocab_size": 100,
    "max_position_embeddings": 64, "use_cache": False,
}  # fmt: skip
T5: Options = {
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 100,
    "use_cache": False,
}
VIT: Options = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
STAGES: Options = {
    "depths": [1, 2, 1],
    "embed_dim": 16,
    "num_heads": [1, 2, 4],
    "window_size": 4,
    "image_size": 64,
}
WAV: Options = {
    **BERT, "vocab_size": 32, "conv_dim": (32, 32, 32), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2),
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip

# Class, config, options, kind of inputs.
MODELS: tuple[tuple[str, str, Options, str], ...] = (
    ("BertModel", "BertConfig", BERT, "tokens"),
    ("RobertaForMaskedLM", "RobertaConfig", BERT, "tokens"),
    (
        "DistilBertModel",
        "DistilBertConfig",
        {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96, "vocab_size": 100},
        "tokens",
    ),
    ("AlbertModel", "AlbertConfig", {**BERT, "embedding_size": 32}, "tokens"),
    ("ElectraModel", "ElectraConfig", {**BERT, "embedding_size": 32}, "tokens"),
    (
        "DebertaV2Model",
        "DebertaV2Config",
        {**BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
        "tokens",
    ),
    ("MPNetModel", "MPNetConfig", BERT, "tokens"),
    (
        "ModernBertModel",
        "ModernBertConfig",
        {**BERT, "pad_token_id": 0, "reference_compile": False},
        "tokens",
    ),
    (
        "GPT2LMHeadModel",
        "GPT2Config",
        {
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "vocab_size": 100,
            "n_positions": 64,
            "use_cache": False,
        },
        "tokens",
    ),
    ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**BERT, "use_cache": False}, "tokens"),
    (
        "GPTJForCausalLM",
        "GPTJConfig",
        {
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "rotary_dim": 8,
            "vocab_size": 100,
            "use_cache": False,
        },
        "tokens",
    ),
    (
        "OPTForCausalLM",
        "OPTConfig",
        {**BERT, "ffn_dim": 96, "word_embed_proj_dim": 64, "use_cache": False},
        "tokens",
    ),
    (
        "BloomForCausalLM",
        "BloomConfig",
        {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100, "use_cache": False},
        "tokens",
    ),
    (
        "FalconForCausalLM",
        "FalconConfig",
        {**BERT, "new_decoder_architecture": False, "multi_query": True, "use_cache": False},
        "tokens",
    ),
    ("LlamaForCausalLM", "LlamaConfig", LLAMA, "tokens"),
    ("MistralForCausalLM", "MistralConfig", LLAMA, "tokens"),
    ("Qwen2ForCausalLM", "Qwen2Config", LLAMA, "tokens"),
    ("Qwen3ForCausalLM", "Qwen3Config", {**LLAMA, "head_dim": 8}, "tokens"),
    ("GemmaForCausalLM", "GemmaConfig", {**LLAMA, "head_dim": 8}, "tokens"),
    ("Gemma2ForCausalLM", "Gemma2Config", {**LLAMA, "head_dim": 8}, "tokens"),
    ("PhiForCausalLM", "PhiConfig", {**LLAMA, "num_key_value_heads": 8}, "tokens"),
    ("StableLmForCausalLM", "StableLmConfig", LLAMA, "tokens"),
    ("CohereForCausalLM", "CohereConfig", LLAMA, "tokens"),
    ("OlmoForCausalLM", "OlmoConfig", LLAMA, "tokens"),
    ("MixtralForCausalLM", "MixtralConfig", MOE, "tokens"),
    (
        "MambaForCausalLM",
        "MambaConfig",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "vocab_size": 100,
            "state_size": 8,
            "use_cache": False,
        },
        "tokens",
    ),
    (
        "Mamba2ForCausalLM",
        "Mamba2Config",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "vocab_size": 100,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
            "chunk_size": 8,
            "use_cache": False,
        },
        "tokens",
    ),
    (
        "RwkvForCausalLM",
        "RwkvConfig",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "vocab_size": 100,
            "context_length": 16,
            "use_cache": False,
        },
        "tokens",
    ),
    ("T5ForConditionalGeneration", "T5Config", T5, "pairs"),
    ("MT5ForConditionalGeneration", "MT5Config", T5, "pairs"),
    ("BartForConditionalGeneration", "BartConfig", BART, "pairs"),
    (
        "MarianMTModel",
        "MarianConfig",
        {**BART, "pad_token_id": 0, "decoder_start_token_id": 0},
        "pairs",
    ),
    ("ViTModel", "ViTConfig", VIT, "pixels 32"),
    ("DeiTModel", "DeiTConfig", VIT, "pixels 32"),
    ("BeitModel", "BeitConfig", VIT, "pixels 32"),
    ("Dinov2Model", "Dinov2Config", {**VIT, "mlp_ratio": 2}, "pixels 32"),
    ("SwinModel", "SwinConfig", STAGES, "pixels 64"),
    ("Swinv2Model", "Swinv2Config", STAGES, "pixels 64"),
    (
        "ConvNextModel",
        "ConvNextConfig",
        {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]},
        "pixels 64",
    ),
    (
        "ResNetModel",
        "ResNetConfig",
        {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]},
        "pixels 64",
    ),
    (
        "SegformerModel",
        "SegformerConfig",
        {
            "hidden_sizes": [16, 32, 48, 64],
            "num_attention_heads": [1, 2, 4, 4],
            "depths": [1, 1, 1, 1],
        },
        "pixels 64",
    ),
    (
        "MobileViTModel",
        "MobileViTConfig",
        {
            "image_size": 64,
            "hidden_sizes": [32, 48, 64],
            "neck_hidden_sizes": [16, 16, 24, 32, 48, 64, 64],
            "num_attention_heads": 4,
        },
        "pixels 64",
    ),
    ("Wav2Vec2Model", "Wav2Vec2Config", WAV, "sound"),
    ("HubertModel", "HubertConfig", WAV, "sound"),
    (
        "ASTModel",
        "ASTConfig",
        {
            **{k: v for k, v in VIT.items() if k != "image_size"},
            "num_mel_bins": 32,
            "max_length": 32,
            "patch_size": 8,
            "frequency_stride": 8,
            "time_stride": 8,
        },
        "spectrum",
    ),
    (
        "WhisperModel",
        "WhisperConfig",
        {
            **{k: v for k, v in BART.items() if k != "max_position_embeddings"},
            "num_mel_bins": 16,
            "max_source_positions": 16,
            "max_target_positions": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        "mel",
    ),
    (
        "CLIPModel",
        "CLIPConfig",
        {
            "projection_dim": 32,
            "text_config": {**BERT, "max_position_embeddings": 32},
            "vision_config": VIT,
        },
        "image and text",
    ),
)


def specimens() -> Iterator[Specimen]:
    """Yield one specimen a class."""
    for name, config, options, kind in MODELS:
        yield Specimen(name, "transformers", partial(_build, name, config, options, kind))


def _build(name: str, config: str, options: Options, kind: str) -> tuple[nn.Module, Inputs]:
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    made = getattr(transformers, config)(**options)
    # The default, grouped matrix products, has no translation to ONNX.
    made._experts_implementation = "batched_mm"
    model: nn.Module = getattr(transformers, name)(made)
    return model.eval(), _inputs(kind)


def _inputs(kind: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 32, (1, 12), generator=generator)
    name, _, size = kind.partition(" ")
    if name == "tokens":
        return {"input_ids": tokens}
    if name == "pairs":
        return {"input_ids": tokens, "decoder_input_ids": tokens[:, :7]}
    if name == "pixels":
        return {"pixel_values": torch.randn(1, 3, int(size), int(size), generator=generator)}
    if name == "sound":
        return {"input_values": torch.randn(1, 800, generator=generator)}
    if name == "spectrum":
        return {"input_values": torch.randn(1, 32, 32, generator=generator)}
    if name == "mel":
        features = torch.randn(1, 16, 32, generator=generator)
        return {"input_features": features, "decoder_input_ids": tokens[:, :7]}
    return {"input_ids": tokens, "pixel_values": torch.randn(1, 3, 32, 32, generator=generator)}
