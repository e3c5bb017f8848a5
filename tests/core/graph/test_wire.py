"""Weights taken out of ONNX bytes: nothing that a graph needs is lost, and garbage is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.core.operators.brute_force import ints, model, node
from torchpruner_core import solve_onnx
from torchpruner_core.errors import InvalidModelError, TorchPrunerError
from torchpruner_core.importing.wire import holds_graph, strip_weights, tensor_headers

BOUNDED = settings(derandomize=True, deadline=None, database=None, max_examples=150)


def small() -> bytes:
    return model(
        [node("Conv", "x w b", "h"), node("Reshape", "h s", "y")],
        {"x": (1, 3, 8, 8)}, ["y"], {"w": (32, 3, 3, 3), "b": (32,), "s": ints(1, 2, 16, 6, 6)},
    )  # fmt: skip


def test_weights_go_and_everything_else_stays():
    data = small()
    bare = strip_weights(data)
    assert len(bare) < len(data) / 4
    tensors = {t.name: t for t in onnx.load_model_from_string(bare).graph.initializer}
    assert not tensors["w"].raw_data and list(tensors["w"].dims) == [32, 3, 3, 3]
    assert numpy_helper.to_array(tensors["s"]).tolist() == [1, 2, 16, 6, 6]
    full, stripped = solve_onnx(data), solve_onnx(bare)
    cuts = [g.cut_analysis("self.w", [0, 1], 0).to_json() for g in (full, stripped)]
    assert cuts[0] == cuts[1]


def test_stripping_twice_changes_nothing():
    bare = strip_weights(small())
    assert strip_weights(bare) == bare


def test_weights_inside_attributes_and_subgraphs_go_too():
    big = numpy_helper.from_array(np.ones((64, 64), np.float32), "inner")
    value = helper.make_tensor_value_info("o", TensorProto.FLOAT, [2, 64])
    branch = helper.make_graph([node("MatMul", "x inner", "o")], "b", [], [value], [big])
    nodes = [
        helper.make_node("Constant", [], ["k"], value=big),
        node("If", "c", "z", then_branch=branch, else_branch=branch),
        node("MatMul", "z k", "y"),
    ]
    data = model(nodes, {"x": (2, 64), "c": ((), bool)}, ["y"])
    assert len(strip_weights(data)) < 2000 < len(data)
    assert solve_onnx(data).nodes["y"].shape == (2, 64)


def test_headers_are_read_without_contents():
    found = {header.name: header for header in tensor_headers(small())}
    assert found["w"].dims == (32, 3, 3, 3) and found["w"].stored == 4 * 32 * 27
    assert not found["w"].external


@BOUNDED
@given(end=st.integers(0, len(small()) - 1))
def test_a_truncated_file_is_refused_cleanly(end):
    data = small()[:end]
    try:
        graph = solve_onnx(data)
    except TorchPrunerError as error:
        assert error.detail
        return
    assert not graph.operators  # a file may end between two fields


@BOUNDED
@given(data=st.binary(max_size=300))
def test_garbage_is_refused_cleanly(data):
    assert isinstance(holds_graph(data), bool)
    with pytest.raises(TorchPrunerError):
        solve_onnx(data)


@BOUNDED
@given(position=st.integers(0, len(small()) - 1), value=st.integers(0, 255))
def test_a_damaged_byte_never_crashes(position, value):
    data = bytearray(small())
    data[position] = value
    try:
        solve_onnx(bytes(data))
    except TorchPrunerError as error:
        assert error.detail


def message(number: int, payload: bytes) -> bytes:
    """Return one length-delimited field."""
    out, size = bytearray([number << 3 | 2]), len(payload)
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size]) + payload


def test_deep_nesting_is_refused_before_it_exhausts_the_stack():
    graph = message(2, b"g" * 300)
    for _ in range(2000):
        graph = message(1, message(5, message(6, graph)))  # node, attribute, graph
    with pytest.raises(InvalidModelError, match="nests"):
        strip_weights(message(7, graph))
