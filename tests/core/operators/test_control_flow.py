"""Control flow: bodies are part of the graph, and ties pass through their borders."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.core.operators.brute_force import case, check_all_cuts, check_case, model, node
from torchpruner_core import TensorSpec, prune_onnx, solve_onnx
from torchpruner_core.onnx_pruning import masked_onnx


def info(name, shape=None, element=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, element, shape)


def body(nodes, inputs, outputs, stored=None):
    tensors = [numpy_helper.from_array(v, k) for k, v in (stored or {}).items()]
    return helper.make_graph(nodes, "body", inputs, outputs, tensors)


def random(*shape):
    return np.random.default_rng(sum(shape)).uniform(0.5, 1.5, shape).astype(np.float32)


def branches():
    """Both branches read the outer ``h``, store their own weight under one name, and give 4 columns."""
    return {
        "then_branch": body(
            [node("MatMul", "h w1", "a"), node("Relu", "a", "o")],
            [],
            [info("o")],
            {"w1": random(6, 4)},
        ),
        "else_branch": body(
            [node("MatMul", "h w1", "a"), node("Sigmoid", "a", "o")],
            [],
            [info("o")],
            {"w1": random(6, 4) * 2},
        ),
    }


TAIL = node("MatMul", "z v", "y")

CASES = [
    *(
        case(
            f"if_{taken}",
            "x:01 w:01 0:01 w1#1:01 1:01 2:01 w1:01 3:01 4:01 5:01 v:01 y:01",
            [node("MatMul", "x w", "h"), node("If", "c", "z", **branches()), TAIL],
            {"x": (2, 3), "c": ((), bool)},
            "y",
            {"w": (3, 6), "v": (4, 5)},
            {"c": np.array(taken)},
            shapes={"y": (2, 5)},
        )
        for taken in (True, False)
    ),
    case(
        "if_passes_outer_values_on",
        "x:01 w:01 0:01 1:01 2:01 3:01 v:01 y:01",
        [
            node("MatMul", "x w", "h"),
            node(
                "If",
                "c",
                "z",
                then_branch=body([node("Relu", "h", "o")], [], [info("o")]),
                else_branch=body([node("Identity", "h", "o")], [], [info("o")]),
            ),
            TAIL,
        ],
        {"x": (2, 3), "c": ((), bool)},
        "y",
        {"w": (3, 4), "v": (4, 5)},
        {"c": np.array(False)},
        shapes={"y": (2, 5)},
    ),
    case(
        "loop_carries_a_state",
        "x:01 w:01 0:01 3:01 u:0 4:01 5:01 7:01 8:12 9:01 10:01 v:01 y:01",
        [
            node("MatMul", "x w", "h"),
            node(
                "Loop",
                "n - h",
                "z all",
                body=body(
                    [
                        node("Identity", "k", "k2"),
                        node("Mul", "s u", "s2"),
                        node("Relu", "s2", "r"),
                    ],
                    [
                        info("i", [], TensorProto.INT64),
                        info("k", [], TensorProto.BOOL),
                        info("s"),
                    ],
                    [info("k2", [], TensorProto.BOOL), info("s2"), info("r")],
                ),
            ),
            node("ReduceMax", "all first", "m", keepdims=0),
            node("Add", "z m", "zz"),
            node("MatMul", "zz v", "y"),
        ],
        {"x": (2, 3)},
        "y",
        {"w": (3, 4), "v": (4, 5), "u": (4,), "n": np.int64(2), "first": np.array([0])},
        shapes={"y": (2, 5)},
    ),
    case(
        "scan_along_an_axis",
        "x:12 w:01 0:12 1:01 u:01 2:01 3:01 4:01 5:01 init:01 6:01 7:12 v:01 y:12",
        [
            node("MatMul", "x w", "h"),
            node(
                "Scan",
                "init h",
                "last z",
                num_scan_inputs=1,
                body=body(
                    [node("MatMul", "s u", "a"), node("Add", "a e", "s2"), node("Tanh", "s2", "o")],
                    [info("s"), info("e")],
                    [info("s2"), info("o")],
                ),
            ),
            node("MatMul", "z v", "y"),
        ],
        {"x": (3, 2, 5)},
        "y",
        {"w": (5, 4), "v": (4, 3), "u": (4, 4), "init": (2, 4)},
        shapes={"y": (3, 2, 3)},
    ),
]


@pytest.mark.parametrize(("made", "options", "feeds", "prunable"), CASES)
def test_every_cut_through_a_body_is_right(made, options, feeds, prunable):
    check_case(made, options, feeds, prunable)


def spoken(rates=(16000, 8000)):
    """Return a model that is one network at one sampling rate, and another at any other."""
    flow = node("If", "c", "z", **branches())
    return model(
        [node("MatMul", "x w", "h"), node("Equal", "sr rate", "c"), flow, TAIL],
        {"x": (2, 3), "sr": ((), np.int64)},
        ["y"],
        {"w": (3, 6), "v": (4, 5), "rate": np.int64(rates[0])},
        shapes={"y": (2, 5)},
    )


@pytest.mark.parametrize("rate", [16000, 8000])
def test_a_condition_fixed_by_an_inputs_value_is_folded(rate):
    data = spoken()
    inputs = {"sr": TensorSpec("sr", (), "int64", (rate,))}
    graph = solve_onnx(data, inputs)
    assert not any(op.type == "If" for op in graph.operators.values())
    kept, gone = ("Relu", "Sigmoid") if rate == 16000 else ("Sigmoid", "Relu")
    kinds = {op.type for op in graph.operators.values()}
    assert kept in kinds and gone not in kinds
    result = graph.cut_analysis("self.w", [1, 4], 1)
    assert type(result).from_json(result.to_json()).inputs[1].value == (rate,)
    pruned = prune_onnx(data, result)
    assert not any(n.op_type == "If" for n in onnx.load_model_from_string(pruned).graph.node)
    feeds = {"x": random(2, 3), "sr": np.int64(rate)}
    run = onnx.reference.ReferenceEvaluator
    expected = run(onnx.load_model_from_string(masked_onnx(data, result))).run(None, feeds)
    received = run(onnx.load_model_from_string(pruned)).run(None, feeds)
    np.testing.assert_allclose(received[0], expected[0], rtol=1e-5)


def test_a_condition_that_follows_from_shapes_is_folded_with_what_it_holds():
    inner = node("If", "small", "o", **branches())
    outer = {
        "then_branch": body([inner], [], [info("o")]),
        "else_branch": body([node("MatMul", "h big", "o")], [], [info("o")], {"big": random(6, 9)}),
    }
    data = model(
        [
            node("MatMul", "x w", "h"),
            node("Shape", "h", "s"),
            node("Gather", "s one", "n"),
            node("Equal", "n six", "c"),
            node("Less", "n two", "small"),
            node("If", "c", "z", **outer),
            TAIL,
        ],
        {"x": (2, 3)},
        ["y"],
        {"w": (3, 6), "v": (4, 5), "one": np.int64(1), "six": np.int64(6), "two": np.int64(2)},
        shapes={"y": (2, 5)},
    )
    kinds = {op.type for op in solve_onnx(data).operators.values()}
    assert "If" not in kinds and "Sigmoid" in kinds and "Relu" not in kinds
    assert "w1" in check_all_cuts(data) or "w1#1" in check_all_cuts(data)


def test_a_value_that_does_not_fit_its_input_is_named():
    from torchpruner_core.errors import InputSpecError

    with pytest.raises(InputSpecError, match="'sr'"):
        solve_onnx(spoken(), {"sr": TensorSpec("sr", (), "int64", (1, 2))})


def test_a_branch_that_these_shapes_do_not_fit_stays_and_the_rest_is_prunable():
    flow = {
        "then_branch": branches()["then_branch"],
        "else_branch": body([node("MatMul", "h odd", "o")], [], [info("o")], {"odd": random(7, 4)}),
    }
    graph = helper.make_graph(
        [node("MatMul", "x w", "h"), node("MatMul", "h r", "k"), node("If", "c", "z", **flow)],
        "g",
        [info("x", [2, 3]), info("c", [], TensorProto.BOOL)],
        [info("z"), info("k")],
        [numpy_helper.from_array(random(3, 6), "w"), numpy_helper.from_array(random(6, 5), "r")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    solved = solve_onnx(made.SerializeToString())
    assert solved.cut_analysis("self.r", [0], 1).touches_outputs == ("k",)


def test_local_functions_are_inlined_and_what_they_store_is_grouped():
    function = helper.make_function(
        "mine",
        "Double",
        ["a"],
        ["b"],
        [
            helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(random(4, 4))),
            node("MatMul", "a w", "m"),
            node("Relu", "m", "b"),
        ],
        [helper.make_opsetid("", 17)],
    )
    graph = helper.make_graph(
        [node("Double", "x", "h", domain="mine"), node("Double", "h", "y", domain="mine")],
        "g",
        [info("x", [2, 4])],
        [info("y", [2, 4])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=8, functions=[function])
    solved = solve_onnx(made.SerializeToString())
    assert solved.params() == 32 and len(solved.groups()) == 3


def test_a_folded_graph_is_run_as_it_was_folded():
    import torchpruner_core as tp

    graph = tp.ONNXGraph(spoken())
    inputs = {"x": random(2, 3), "sr": TensorSpec("sr", (), "int64", (8000,))}
    graph.build_graph(inputs)
    assert all(node.data is not None for node in graph.nodes.values())
    assert graph.nodes["y"].data.shape == (2, 5)
