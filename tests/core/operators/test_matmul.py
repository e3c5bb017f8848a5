"""Matrix products, vectors and broadcast batches included, and their FLOPs."""

from __future__ import annotations

import pytest

from tests.core.operators.brute_force import case, check_case, model, node
from torchpruner_core import solve_onnx

CASES = [
    case(
        "matrices",
        "x:01 w:01 y:01",
        [node("MatMul", "x w", "y")],
        {"x": (3, 4)},
        "y",
        {"w": (4, 5)},
    ),
    case("vector_vector", "x:0 w:0", [node("MatMul", "x w", "y")], {"x": (4,)}, "y", {"w": (4,)}),
    case(
        "vector_matrix",
        "x:0 w:012 y:01",
        [node("MatMul", "x w", "y")],
        {"x": (4,)},
        "y",
        {"w": (3, 4, 2)},
    ),
    case(
        "matrix_vector",
        "x:012 w:0 y:01",
        [node("MatMul", "x w", "y")],
        {"x": (2, 3, 4)},
        "y",
        {"w": (4,)},
    ),
    case(
        "broadcast_batches",
        "x:023 w:012 y:0123",
        [node("MatMul", "x w", "y")],
        {"x": (2, 1, 3, 4)},
        "y",
        {"w": (5, 4, 2)},
    ),
    case(
        "gemm_transposed",
        "x:01 w:01 c:0 y:01",
        [node("Gemm", "x w c", "y", transA=1, transB=1, beta=0.5)],
        {"x": (4, 3)},
        "y",
        {"w": (5, 4), "c": (3, 1)},
    ),
    case(
        "gemm_without_c",
        "x:01 w:01 y:01",
        [node("Gemm", "x w", "y", alpha=2.0)],
        {"x": (3, 4)},
        "y",
        {"w": (4, 5)},
    ),
    case(
        "gemm_row",
        "x:01 w:01 c:0 y:01",
        [node("Gemm", "x w c", "y")],
        {"x": (3, 4)},
        "y",
        {"w": (4, 5), "c": (5,)},
    ),
    case(
        "gemm_scalar",
        "x:01 w:01 y:01",
        [node("Gemm", "x w c", "y")],
        {"x": (3, 4)},
        "y",
        {"w": (4, 5), "c": (1,)},
    ),
    case(
        "einsum_ellipsis",
        "x:012 w:01 y:012",
        [node("Einsum", "x w", "y", equation="...ij,jk->...ik")],
        {"x": (2, 3, 4)},
        "y",
        {"w": (4, 5)},
    ),
    case(
        "einsum_implicit",
        "x:0123 w:0123 y:01",
        [node("Einsum", "x w", "y", equation="bhid , bhjd")],
        {"x": (2, 3, 4, 5)},
        "y",
        {"w": (2, 3, 2, 5)},
    ),
    case(
        "einsum_diagonal",
        "x:012 y:01",
        [node("Einsum", "x", "y", equation="...ii->...i")],
        {"x": (2, 4, 4)},
        "y",
    ),
    case(
        "einsum_trace",
        "x:012 y:0",
        [node("Einsum", "x", "y", equation="bii->b")],
        {"x": (2, 4, 4)},
        "y",
    ),
    case(
        "einsum_transpose",
        "x:012 y:012",
        [node("Einsum", "x", "y", equation="ijk->kji")],
        {"x": (2, 3, 4)},
        "y",
    ),
    case(
        "einsum_outer",
        "x:0 w:0 y:01",
        [node("Einsum", "x w", "y", equation="i,j->ij")],
        {"x": (3,)},
        "y",
        {"w": (4,)},
    ),
    case(
        "einsum_three",
        "x:01 w:01 v:01 y:01",
        [node("Einsum", "x w v", "y", equation="bi,ij,jk->bk")],
        {"x": (2, 3)},
        "y",
        {"w": (3, 4), "v": (4, 5)},
    ),
    case(
        "einsum_ellipsis_both",
        "x:12 w:012 y:01",
        [node("Einsum", "x w", "y", equation="...i,...i->...")],
        {"x": (1, 3, 4)},
        "y",
        {"w": (2, 3, 4)},
        shapes={"y": (2, 3)},
    ),
    case(
        "two_activations",
        "x:01 w:01 0:01 v:01 1:01 2:01 y:01",
        [
            node("MatMul", "x w", "q"),
            node("MatMul", "x v", "k"),
            node("Transpose", "k", "t", perm=[1, 0]),
            node("MatMul", "q t", "y"),
        ],
        {"x": (3, 4)},
        "y",
        {"w": (4, 5), "v": (4, 5)},
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_cuts_are_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)


@pytest.mark.parametrize(
    ("nodes", "inputs", "flops"),
    [
        ([node("MatMul", "x w", "y")], {"x": (2, 3, 4), "w": (4, 5)}, 2 * 2 * 3 * 4 * 5),
        ([node("Gemm", "x w", "y", transB=1)], {"x": (3, 4), "w": (5, 4)}, 2 * 3 * 4 * 5),
        (
            [node("Einsum", "x w", "y", equation="bid,bjd->bij")],
            {"x": (2, 3, 4), "w": (2, 5, 4)},
            2 * 2 * 3 * 4 * 5,
        ),
        ([node("Einsum", "x", "y", equation="bid->b")], {"x": (2, 3, 4)}, 0),
        (
            [node("Conv", "x w", "y", group=2)],
            {"x": (2, 4, 5, 5), "w": (6, 2, 3, 3)},
            2 * 2 * 6 * 2 * 9 * 9,
        ),
        (
            [node("ConvTranspose", "x w", "y")],
            {"x": (2, 4, 5, 5), "w": (4, 3, 3, 3)},
            2 * 2 * 4 * 3 * 9 * 25,
        ),
        (
            [node("LSTM", "x w r", "y", hidden_size=4)],
            {"x": (3, 2, 5), "w": (1, 16, 5), "r": (1, 16, 4)},
            2 * 3 * 2 * 16 * (5 + 4),
        ),
        (
            [node("Attention", "x k v", "y", q_num_heads=4, kv_num_heads=2)],
            {"x": (2, 3, 8), "k": (2, 5, 4), "v": (2, 5, 6)},
            2 * 2 * 4 * 3 * 5 * (2 + 3),
        ),
    ],
)
def test_flops_count_two_a_multiply_accumulate(nodes, inputs, flops):
    opset = 23 if nodes[0].op_type == "Attention" else 21
    assert solve_onnx(model(nodes, inputs, ["y"], opset=opset)).flops() == flops
