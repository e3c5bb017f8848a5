"""transformers, further on: mixtures of experts, state-space hybrids, sparse and complex attention.

They run with the library's own defaults, grouped products of experts among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.zoo.specimen import Inputs, Specimen
from benchmarks.zoo.transformers_models import BART, BERT, LLAMA, T5, VIT, WAV, Options

TOKENS: Options = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ENCODER: Options = {**BERT, **TOKENS, "max_position_embeddings": 64}
DECODER: Options = {**LLAMA, **TOKENS, "num_attention_heads": 4, "head_dim": 16}
EXPERTS: Options = {
    **DECODER, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 48, "shared_expert_intermediate_size": 48, "decoder_sparse_step": 1,
}  # fmt: skip
ROUTED: Options = {
    **EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1,
}  # fmt: skip
DEEPSEEK: Options = {
    **BERT, "num_key_value_heads": 4, "moe_intermediate_size": 32, "n_routed_experts": 4,
    "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
    "first_k_dense_replace": 1, "q_lora_rank": 32,
    "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "use_cache": False,
    "max_position_embeddings": 64,
}  # fmt: skip
MAMBA: Options = {
    "mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_n_heads": 8, "mamba_d_head": 16,
    "mamba_n_groups": 1, "mamba_chunk_size": 8,
}  # fmt: skip
GPT: Options = {
    "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100, "n_positions": 64, "use_cache": False
}  # fmt: skip
SEQ: Options = {**BART, **TOKENS, "decoder_start_token_id": 1}
SLIDING: Options = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}

# Class, options, kind of inputs and their size.
MODELS: tuple[tuple[str, Options, str], ...] = (
    ("Qwen3MoeForCausalLM", EXPERTS, "tokens 12"),
    ("Qwen2MoeForCausalLM", EXPERTS, "tokens 12"),
    ("GptOssForCausalLM", {**EXPERTS, **SLIDING}, "tokens 12"),
    ("DeepseekV3ForCausalLM", DEEPSEEK, "tokens 12"),
    (
        "DeepseekV2ForCausalLM",
        {**DEEPSEEK, "n_group": None, "topk_group": None, "topk_method": "greedy"},
        "tokens 12",
    ),
    (
        "JambaForCausalLM",
        {
            **EXPERTS, "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1,
            "expert_layer_period": 2, "expert_layer_offset": 1, "use_mamba_kernels": False,
            "mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": 8,
        },
        "tokens 12",
    ),
    ("BambaForCausalLM", {**DECODER, "attn_layer_indices": [1], **MAMBA}, "tokens 12"),
    (
        "Zamba2ForCausalLM",
        {
            **DECODER, "num_key_value_heads": 4, "attention_head_dim": 32,
            "layers_block_type": ["mamba", "hybrid"], "mamba_d_state": 8, "n_mamba_heads": 8,
            "mamba_headdim": 16, "mamba_ngroups": 1, "chunk_size": 8, "use_mamba_kernels": False,
            "num_mem_blocks": 1, "adapter_rank": 8,
        },
        "tokens 12",
    ),
    (
        "FalconH1ForCausalLM",
        {
            **DECODER, "mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8,
            "mamba_n_groups": 1, "mamba_chunk_size": 8,
        },
        "tokens 12",
    ),
    ("GraniteMoeForCausalLM", EXPERTS, "tokens 12"),
    (
        "GraniteMoeHybridForCausalLM",
        {**EXPERTS, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 32, **MAMBA},
        "tokens 12",
    ),
    ("OlmoeForCausalLM", EXPERTS, "tokens 12"),
    ("PhimoeForCausalLM", EXPERTS, "tokens 12"),
    ("JetMoeForCausalLM", {**EXPERTS, "kv_channels": 16}, "tokens 12"),
    (
        "Ernie4_5_MoeForCausalLM",
        {**EXPERTS, "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1},
        "tokens 12",
    ),
    ("Glm4MoeForCausalLM", ROUTED, "tokens 12"),
    ("Dots1ForCausalLM", ROUTED, "tokens 12"),
    ("HunYuanMoEV1ForCausalLM", {**EXPERTS, "moe_topk": 2}, "tokens 12"),
    (
        "Llama4ForCausalLM",
        {**EXPERTS, "intermediate_size_mlp": 96, "attention_chunk_size": 8, "moe_layers": [1]},
        "tokens 12",
    ),
    (
        "Lfm2ForCausalLM",
        {**DECODER, "layer_types": ["conv", "full_attention"], "block_ff_dim": 96},
        "tokens 12",
    ),
    (
        "Lfm2MoeForCausalLM",
        {**EXPERTS, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
        "tokens 12",
    ),
    (
        "MiniMaxForCausalLM",
        {**EXPERTS, "layer_types": ["full_attention", "linear_attention"], "block_size": 8},
        "tokens 12",
    ),
    (
        "Qwen3NextForCausalLM",
        {
            **EXPERTS, "layer_types": ["linear_attention", "full_attention"],
            "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
        "tokens 12",
    ),
    (
        "FalconMambaForCausalLM",
        {
            "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 100, "state_size": 8,
            "use_cache": False,
        },
        "tokens 12",
    ),
    (
        "RecurrentGemmaForCausalLM",
        {
            **DECODER, "lru_width": 64, "attention_window_size": 16, "num_hidden_layers": 3,
            "block_types": ["recurrent", "recurrent", "attention"],
        },
        "tokens 12",
    ),
    (
        "NystromformerModel",
        {**ENCODER, "num_landmarks": 4, "segment_means_seq_len": 16},
        "tokens 16",
    ),
    ("FNetModel", ENCODER, "tokens 12"),
    (
        "FunnelModel",
        {
            "vocab_size": 100, "block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 64,
            "n_head": 4, "d_head": 16, "d_inner": 96,
        },
        "tokens 16",
    ),
    (
        "BigBirdModel",
        {**ENCODER, "attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1},
        "tokens 48",
    ),
    ("LongformerModel", {**ENCODER, "attention_window": 8}, "tokens 16"),
    (
        "XLNetModel",
        {"vocab_size": 100, "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 96},
        "tokens 12",
    ),
    ("ConvBertModel", {**ENCODER, "embedding_size": 32}, "tokens 12"),
    ("RoFormerModel", {**ENCODER, "embedding_size": 64}, "tokens 12"),
    (
        "CanineModel",
        {
            **ENCODER, "local_transformer_stride": 8, "num_hash_buckets": 100,
            "downsampling_rate": 4,
        },
        "tokens 64",
    ),
    (
        "GPTNeoForCausalLM",
        {
            "vocab_size": 100, "hidden_size": 64, "num_layers": 2, "num_heads": 4,
            "attention_types": [[["global", "local"], 1]], "window_size": 8,
            "max_position_embeddings": 64, "use_cache": False,
        },
        "tokens 12",
    ),
    ("GPTBigCodeForCausalLM", GPT, "tokens 12"),
    ("CodeGenForCausalLM", {**GPT, "rotary_dim": 8, "n_ctx": 64}, "tokens 12"),
    (
        "MptForCausalLM",
        {
            "d_model": 64, "n_heads": 4, "n_layers": 2, "vocab_size": 100, "max_seq_len": 64,
            "use_cache": False,
        },
        "tokens 12",
    ),
    ("Phi3ForCausalLM", DECODER, "tokens 12"),
    ("Gemma3ForCausalLM", DECODER, "tokens 12"),
    ("DiffLlamaForCausalLM", DECODER, "tokens 12"),
    ("Cohere2ForCausalLM", {**DECODER, **SLIDING}, "tokens 12"),
    (
        "SwitchTransformersForConditionalGeneration",
        {
            **T5, "num_experts": 4, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1,
            "num_decoder_layers": 2,
        },
        "pairs 12",
    ),
    (
        "LongT5ForConditionalGeneration",
        {
            **T5, "local_radius": 4, "encoder_attention_type": "transient-global",
            "global_block_size": 4,
        },
        "pairs 12",
    ),
    ("PegasusForConditionalGeneration", SEQ, "pairs 12"),
    ("M2M100ForConditionalGeneration", SEQ, "pairs 12"),
    ("WavLMModel", WAV, "sound 800"),
    ("SEWModel", {**WAV, "squeeze_factor": 2}, "sound 800"),
    ("DINOv3ViTModel", VIT, "pixels 32"),
    ("VideoMAEModel", {**VIT, "num_frames": 4, "tubelet_size": 2}, "frames 32"),
    ("TimesformerModel", {**VIT, "num_frames": 4}, "frames 32"),
)  # fmt: skip


def specimens() -> Iterator[Specimen]:
    """Yield one specimen a class."""
    for name, options, kind in MODELS:
        yield Specimen(name, "transformers", partial(_build, name, options, kind))


def _build(name: str, options: Options, kind: str) -> tuple[nn.Module, Inputs]:
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    made: Any = getattr(transformers, name)
    model: nn.Module = made(made.config_class(**options))
    return model.eval(), _inputs(kind)


def _inputs(kind: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    name, _, size = kind.partition(" ")
    n = int(size)
    if name in ("tokens", "pairs"):
        tokens = torch.randint(3, 32, (1, n), generator=generator)
        return {"input_ids": tokens} | (
            {"decoder_input_ids": tokens[:, :7]} if name == "pairs" else {}
        )
    if name == "sound":
        return {"input_values": torch.randn(1, n, generator=generator)}
    shape = (1, 4, 3, n, n) if name == "frames" else (1, 3, n, n)
    return {"pixel_values": torch.randn(shape, generator=generator)}
