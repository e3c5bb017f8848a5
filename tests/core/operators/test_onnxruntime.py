"""Fused operators of onnxruntime's own domain."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.operators.brute_force import case, check_case, node

DOMAIN = {"com.microsoft": 1}


def fused(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return node(kind, inputs, outputs, domain="com.microsoft", **attributes)


LINEAR = node("MatMul", "x w", "h")
X, W = {"x": (2, 3, 4)}, {"w": (4, 6)}

CASES = [
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
