"""Operators that no slice passes through, each with the reason.

A cut that reaches one of them is refused with its name; the rest of the model stays prunable. An
operator whose inputs are all constants of the program never gets here: what it computes is a
constant too. Together with the families beside this file, these are all operators of ONNX's
operator sets; ``tests/core/operators`` walks the registry of schemas to prove it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torchpruner_core.coupling.ties import Ties
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.registry import describes, operator_register

REASONS: dict[str, tuple[str, ...]] = {
    "what its subgraph does with an axis is not read": (
        *("SequenceMap", "ai.onnx.preview::FlexAttention"),
    ),
    "how large its result is depends on data": (*("NonMaxSuppression", "Unique"),),
    "its values are made from a shape or a length": (
        *("Constant", "EyeLike", "Range", "Shape", "Size"),
        *("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"),
        *("RandomNormal", "RandomUniform"),
    ),
    "its values are drawn from a distribution over the whole axis": ("Multinomial",),
    "sequences and optional values have no axes": (
        *("ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement"),
        *("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert"),
        *("SequenceLength", "SplitToSequence"),
    ),
    "it works on text": (
        *("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"),
    ),
    "it decodes a file": ("ImageDecoder",),
    "it is an operator of classical machine learning": tuple(
        f"ai.onnx.ml::{name}"
        for name in (
            *("ArrayFeatureExtractor", "Binarizer", "CastMap", "CategoryMapper"),
            *("DictVectorizer", "FeatureVectorizer", "Imputer", "LabelEncoder"),
            *("LinearClassifier", "LinearRegressor", "Normalizer", "OneHotEncoder"),
            *("SVMClassifier", "SVMRegressor", "Scaler", "TreeEnsemble"),
            *("TreeEnsembleClassifier", "TreeEnsembleRegressor", "ZipMap"),
        )
    ),
    "it is a step of training": tuple(
        f"ai.onnx.preview.training::{name}" for name in ("Adagrad", "Adam", "Gradient", "Momentum")
    ),
}


class Opaque(OperatorNode):
    """Every axis that it reads or computes stays; ``reason`` says why."""

    reason = ""

    def ties(self, ties: Ties) -> None:
        self.opaque(ties, self.reason)


def register_opaque(reasons: Mapping[str, tuple[str, ...]]) -> None:
    """Register operator types, by the reason why no slice passes through them."""
    for reason, names in reasons.items():
        family = type("Opaque", (Opaque,), {"reason": reason, "__doc__": Opaque.__doc__})
        for name in names:
            operator_register.describe(name, family)


register_opaque(REASONS)


@describes("NonZero")
class NonZero(Opaque):
    """The places of a tensor that are not zero; of a stored mask, a list of them can be renumbered."""

    reason = "how large its result is depends on data"

    def ties(self, ties: Ties) -> None:
        mask = self.input(0)
        if mask is not None and mask.kind in ("parameter", "buffer"):
            self.opaque(
                ties,
                f"how large its result is depends on the mask {mask.name}: hold the places in its stead, "
                "as register_buffer('kept', mask.nonzero().flatten()), and index with those",
            )
        else:
            self.opaque(ties, self.reason)
