"""Operators of onnxruntime's own domains that no slice passes through, each with the reason.

Together with the families beside this file these are all operators that onnxruntime registers;
``tests/core/operators`` walks its registry to prove it.
Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Callable

from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.operators.opaque import Opaque, register_opaque
from torchpruner_core.operators.registry import operator_register

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


def _like_first(operator: Opaque, x: DataNode) -> tuple[int, ...]:
    return x.shape


def _columns(operator: Opaque, x: DataNode) -> tuple[int, ...]:
    return (*x.shape[:-1], int(operator.params["N"]))


def _gathered(operator: Opaque, x: DataNode) -> tuple[int, ...]:
    indices = operator.in_data[1]
    assert indices is not None
    packed = 8 // int(operator.params.get("bits", 4)) if x.dtype == "uint8" else 1
    shape = [*x.shape[:-1], x.shape[-1] * packed]
    axis = int(operator.params.get("gather_axis", 0)) % len(shape)
    return (*shape[:axis], *indices.shape, *shape[axis + 1 :])


SHAPES: dict[str, Callable[[Opaque, DataNode], tuple[int, ...]]] = {
    **dict.fromkeys(
        ("Trilu", "QMoE", "ScaledSiLU", "GatedAdd", "GatedRMSNorm", "GemmaRotaryEmbedding"),
        _like_first,
    ),
    **dict.fromkeys(("Inverse", "ComplexMul", "ComplexMulConj", "BitmaskDropout"), _like_first),
    "MatMulBnb4": _columns,
    "GatherBlockQuantized": _gathered,
}
"""What comes out of some of them: without its shape, nothing behind them could be followed."""


def _with_shapes() -> None:
    for name, rule in SHAPES.items():
        family = operator_register.get(name, "com.microsoft")

        def fill_shape(
            self: Opaque, rule: Callable[[Opaque, DataNode], tuple[int, ...]] = rule
        ) -> None:
            x, out = self.in_data[0], self.out_data[0]
            assert x is not None
            scale = self.input(2) if self.type == "GatherBlockQuantized" else x
            out.shape, out.dtype = rule(self, x), scale.dtype if scale is not None else x.dtype

        shaped = type("Opaque", (family,), {"fill_shape": fill_shape, "__doc__": Opaque.__doc__})
        operator_register.describe(f"com.microsoft::{name}", shaped)


_with_shapes()
