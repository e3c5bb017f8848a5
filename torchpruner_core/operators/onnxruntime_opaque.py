"""Operators of onnxruntime's own domains that no slice passes through, each with the reason.

Together with the families beside this file these are all operators that onnxruntime registers;
``tests/core/operators`` walks its registry to prove it.
Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from torchpruner_core.operators.opaque import register_opaque

REASONS: dict[str, tuple[str, ...]] = {
    "it searches for a sequence with a network of its own inside": (
        *("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"),
    ),
    "it decodes with caches that are addressed by data": (
        *("DecoderAttention", "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention"),
        *("PackedAttention", "PackedMultiHeadAttention", "PagedAttention", "SparseAttention"),
        *("SparsePagedAttention", "DynamicSparseAttention", "LongformerAttention", "AttnLSTM"),
        *("QOrderedAttention", "QOrderedLongformerAttention", "SparseAttentionIndexer"),
        *("PackedSparseAttentionIndexer", "RemovePadding", "RestorePadding"),
        *("RelativePositionBias", "GatedRelativePositionBias", "GemmaRotaryEmbedding"),
        *("MRotaryEmbedding", "LinearAttention", "LinearAttentionGate", "GatedDeltaNet"),
    ),
    "its weights are packed in blocks that cross the axes": (
        *("MatMulBnb4", "MatMulFpQ4", "MatMulNBitsMlp", "MatMulNBitsQkv", "QMoE"),
        *("MatMulBlockQuantizedFp4Weight", "MatMulBlockQuantizedFp8Weight", "GatherBlockQuantized"),
        *("QuantizeBFP", "DequantizeBFP", "GemmFloat8"),
        *("QuantizeWithOrder", "DequantizeWithOrder", "QOrderedGelu", "QOrderedMatMul"),
        *("QOrderedLayerNormalization", "QEmbedLayerNormalization", "SparseToDenseMatMul"),
    ),
    "its channels come last, or in blocks, which no rule follows": (
        *("NhwcConv", "NhwcFusedConv", "NhwcMaxPool"),
        *(
            f"com.microsoft.nchwc::{name}"
            for name in (
                *("AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"),
                *("ReorderInput", "ReorderOutput", "Upsample"),
            )
        ),
        *(
            f"com.ms.internal.nhwc::{name}"
            for name in (
                *("AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace"),
                *("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GridSample"),
                *("InstanceNormalization", "LRN", "LpPool", "MaxPool", "MaxUnpool"),
                *("QLinearAveragePool", "QLinearConv", "QLinearConvTranspose", "Resize"),
                "SpaceToDepth",
            )
        ),
    ),
    "it transforms a signal along the axis": ("Rfft", "Irfft", "ComplexMul", "ComplexMulConj"),
    "how large its result is depends on data": (
        *("Unique", "Tokenizer", "DynamicTimeWarping", "BifurcationDetector", "NGramRepeatBlock"),
        *("NGramHashMapping", "VarlenNGramHashMapping", "MurmurHash3", "WordConvEmbedding"),
    ),
    "its arguments are read when the model runs": (
        *("Pad", "Range", "Trilu", "ExpandDims", "GatherND", "CropAndResize", "GridSample"),
        *("ConvTransposeWithDynamicPads", "MaxpoolWithMask", "UnfoldTensor", "TorchEmbedding"),
    ),
    "it is a step of training": ("BitmaskDropout", "BitmaskBiasDropout", "IsAllFinite"),
    "it holds a compiled network": ("EPContext", "Snpe", "SampleOp"),
    "its gates mix halves of the axis, or neighbours": (
        *("BiasSplitGelu", "BranchwiseRMSNorm", "CDist", "CausalConvWithState", "EngramGate"),
        *("GatedAdd", "GatedRMSNorm", "HyperConnectionPostMix", "HyperConnectionPreMix"),
        *(
            "Inverse",
            "MatMulInteger16",
            "MulInteger",
            "QLinearReduceMean",
            "ReduceSumInteger",
            "ScaledSiLU",
        ),
        "VarlenCausalConvWithState",
    ),
}

register_opaque(
    {
        reason: tuple(name if "::" in name else f"com.microsoft::{name}" for name in names)
        for reason, names in REASONS.items()
    }
)
