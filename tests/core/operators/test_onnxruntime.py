"""Fused operators of onnxruntime's own domain."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.operators.brute_force import case, check_case, model, node
from torchpruner_core import solve_onnx

DOMAIN = {"com.microsoft": 1}


def fused(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return node(kind, inputs, outputs, domain="com.microsoft", **attributes)


LINEAR = node("MatMul", "x w", "h")
X, W = {"x": (2, 3, 4)}, {"w": (4, 6)}

CASES = [
    case(
        "FusedConv",
        "x:01 w:01 b:0 0:01 v:01 y:01",
        [
            fused("FusedConv", "x w b", "h", activation="Relu", kernel_shape=[3, 3]),
            fused("FusedConv", "h v", "y", group=2, kernel_shape=[1, 1]),
        ],
        {"x": (2, 3, 5, 5)},
        "y",
        {"w": (4, 3, 3, 3), "b": (4,), "v": (6, 2, 1, 1)},
        domains=DOMAIN,
        shapes={"y": (2, 6, 3, 3)},
    ),
    case(
        "FusedGemm",
        "x:01 w:01 b:0 0:01 v:01 y:01",
        [
            fused("FusedGemm", "x w b", "h", activation="Relu", transB=1),
            fused("FusedGemm", "h v", "y", activation="Sigmoid"),
        ],
        {"x": (2, 3)},
        "y",
        {"w": (6, 3), "b": (6,), "v": (6, 4)},
        domains=DOMAIN,
        shapes={"y": (2, 4)},
    ),
    *(
        case(
            f"MoE-{name}",
            "x:01 r:0 0:0 1:0 a:12 b:1 c:12 d:1 2:01 u:01 y:01",
            [
                node("MatMul", "x r", "p"),
                node("Softmax", "p", "q"),
                fused("MoE", "x q a b c d", "m", k=2, **attributes),
                node("MatMul", "m u", "y"),
            ],
            {"x": (3, 6)},
            "y",
            {
                "r": (6, 3),
                "a": (3, 4 * width, 6),
                "b": (3, 4 * width),
                "c": (3, 6, 4),
                "d": (3, 6),
                "u": (6, 2),
            },
            domains=DOMAIN,
            shapes={"y": (3, 2)},
        )
        for name, width, attributes in (
            ("relu", 1, {"activation_type": "relu"}),
            ("swiglu", 2, {"activation_type": "swiglu", "swiglu_fusion": 1}),
        )
    ),
    *(
        case(
            kind,
            "x:012 w:01 0:012 y:012",
            [LINEAR, fused(kind, "h", "y")],
            X,
            "y",
            W,
            domains=DOMAIN,
            shapes={"y": (2, 3, 6)},
        )
        for kind in ("Gelu", "QuickGelu")
    ),
    *(
        case(
            kind,
            "x:012 w:01 0:012 b:0 y:012",
            [LINEAR, fused(kind, "h b", "y")],
            X,
            "y",
            {**W, "b": (6,)},
            domains=DOMAIN,
            shapes={"y": (2, 3, 6)},
        )
        for kind in ("BiasGelu", "FastGelu")
    ),
    case(
        "skip_layer_norm",
        "x:012 w:01 0:012 s:0 b:0 c:0 1:012 2:012 y:012",
        [LINEAR, fused("SkipLayerNormalization", "h h s b c", "n - - t"), node("Add", "n t", "y")],
        X,
        "y",
        {**W, "s": (6,), "b": (6,), "c": (6,)},
        domains=DOMAIN,
        shapes={"y": (2, 3, 6)},
    ),
    case(
        "skip_rms_norm",
        "x:012 z:012 w:01 0:012 s:0 y:012",
        [LINEAR, fused("SkipSimplifiedLayerNormalization", "h z s", "y")],
        {**X, "z": (2, 3, 6)},
        "y",
        {**W, "s": (6,)},
        domains=DOMAIN,
        shapes={"y": (2, 3, 6)},
    ),
    case(
        "fused_matmul",
        "x:012 w:01 0:012 v:01 y:012",
        [LINEAR, fused("FusedMatMul", "h v", "y", transB=1, alpha=0.5)],
        X,
        "y",
        {**W, "v": (5, 6)},
        domains=DOMAIN,
        shapes={"y": (2, 3, 5)},
    ),
    *(
        case(
            kind,
            "x:012 w:01 0:012 v:01 y:012",
            [LINEAR, fused(kind, "h v", "y", transB=1, **attributes)],
            X,
            "y",
            {**W, "v": (5, 6)},
            domains=DOMAIN,
            shapes={"y": (2, 3, 5)},
        )
        for kind, attributes in (("TransposeMatMul", {}),)
    ),
    case(
        "fused_matmul_of_activations",
        "x:012 z:012 w:01 0:012 y:012",
        [LINEAR, fused("FusedMatMul", "h z", "y", transA=1)],
        {**X, "z": (2, 3, 5)},
        "y",
        W,
        domains=DOMAIN,
        shapes={"y": (2, 6, 5)},
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)


NO_CPU_KERNEL = {
    "BiasAdd": (fused("BiasAdd", "h b r", "n"), [node("Add", "h b", "m"), node("Add", "m r", "n")]),
    "BiasDropout": (
        fused("BiasDropout", "h b r", "n"),
        [node("Add", "h b", "m"), node("Add", "m r", "n")],
    ),
    "GroupNorm": (
        fused("GroupNorm", "h b c", "n", groups=2, activation=0, channels_last=0),
        [node("GroupNormalization", "h b c", "n", num_groups=2)],
    ),
    "SkipGroupNorm": (
        fused("SkipGroupNorm", "h b c r", "n", groups=2, activation=0, channels_last=0),
        [node("Add", "h r", "m"), node("GroupNormalization", "m b c", "n", num_groups=2)],
    ),
    "BiasSoftmax": (
        fused("BiasSoftmax", "h r", "n", axis=1, is_inner_broadcast=0),
        [node("Add", "h r", "m"), node("Softmax", "m", "n", axis=1)],
    ),
    "FusedMatMulActivation": (
        fused("FusedMatMulActivation", "h s", "n", activation="Relu"),
        [node("MatMul", "h s", "m"), node("Relu", "m", "n")],
    ),
    "GemmFastGelu": (
        fused("GemmFastGelu", "h s b", "n"),
        [node("MatMul", "h s", "m"), node("Add", "m b", "k"), node("Gelu", "k", "n")],
    ),
}


@pytest.mark.parametrize("kind", NO_CPU_KERNEL)
def test_what_only_other_devices_run_ties_as_the_operators_it_replaces(kind):
    """onnxruntime has no CPU kernel of these, so they are held against plain ONNX."""
    lone, plain = NO_CPU_KERNEL[kind]
    shape = (2, 4, 4, 4)
    stored = {"w": (4, 4, 1, 1), "b": (4,), "c": (4,), "r": shape, "s": (4, 4)}

    def groups(nodes: list[Any]) -> list[Any]:
        used = {name for item in nodes for name in item.input}
        kept = {name: value for name, value in stored.items() if name in {*used, "w"}}
        data = model(
            [node("Conv", "x w", "h"), *nodes, node("Relu", "n", "y")],
            {"x": shape},
            ["y"],
            kept,
            domains=DOMAIN,
            shapes={"y": shape},
        )
        graph = solve_onnx(data)
        channels = [graph.cut_analysis("self.w", [k], 0, granularity="inner") for k in range(4)]
        return [
            (cut.to_dict()["terminal"], bool(cut.renormalises), cut.touches_outputs)
            for cut in channels
        ]

    assert groups([lone]) == groups(plain)
