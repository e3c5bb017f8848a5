"""Hostile ONNX: other files, impossible sizes, cycles, depth, length, and bytes that are no protobuf."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.attacks.conftest import Attack

F = TensorProto.FLOAT


def model(
    nodes: list[onnx.NodeProto],
    initializers: list[TensorProto] | None = None,
    shape: list[int] | None = None,
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", F, shape or [1, 4])
    y = helper.make_tensor_value_info("y", F, None)
    graph = helper.make_graph(nodes, "g", [x], [y], initializers or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def weight(name: str = "w") -> TensorProto:
    return numpy_helper.from_array(np.ones((4, 4), np.float32), name)


def external(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=F, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="64")
    return tensor


@pytest.mark.parametrize("location", ["/etc/passwd", "../../../../etc/passwd", "w.bin"])
def test_external_data_is_refused(attack: Attack, location: str) -> None:
    content = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [external(location)])
    problem = attack.fails(content.SerializeToString())
    assert problem["type"] == "external-data"


@pytest.mark.parametrize("location", ["/etc/passwd", "../../../../etc/passwd"])
def test_external_data_in_a_constant_is_not_read(attack: Attack, location: str) -> None:
    constant = helper.make_node("Constant", [], ["w"], value=external(location))
    content = model([constant, helper.make_node("MatMul", ["x", "w"], ["y"])])
    shown = attack.ends(content.SerializeToString())
    assert "root:" not in str(shown)
    if shown.get("state") == "ready":
        asked = attack.service.client.post(f"/v1/models/{shown['id']}/pruned-onnx", json={})
        made = attack.service.wait_job(asked.headers["location"])
        if made["state"] == "ready":
            assert b"root:" not in attack.service.client.get(made["content"]).content


def test_huge_dims_are_bounded(attack: Attack) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    for dims in ([2**62, 4], [2**40, 2**40], [4, 2**31]):
        tensor = TensorProto(name="w", data_type=F, dims=dims)
        attack.ends(model([node], [tensor], [1, dims[0]]).SerializeToString())
    attack.ends(
        model([helper.make_node("Relu", ["x"], ["y"])], shape=[2**62, 2**62]).SerializeToString()
    )


def test_a_huge_constant_shape_is_bounded(attack: Attack) -> None:
    shape = numpy_helper.from_array(np.array([2**40, 2**20], np.int64), "s")
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    attack.ends(model(nodes, [shape]).SerializeToString())
    times = numpy_helper.from_array(np.array([2**30, 2**30], np.int64), "s")
    attack.ends(model([helper.make_node("Tile", ["x", "s"], ["y"])], [times]).SerializeToString())


def test_a_cycle_is_refused(attack: Attack) -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    problem = attack.fails(model(nodes).SerializeToString())
    assert problem["type"] == "invalid-model" and "a cycle" in problem["detail"]


def test_deeply_nested_subgraphs_end_cleanly(attack: Attack) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["o"])],
        "g",
        [],
        [helper.make_tensor_value_info("o", F, None)],
    )
    for depth in range(28):
        node = helper.make_node("If", ["c"], [f"o{depth}"], then_branch=inner)
        inner = helper.make_graph(
            [node], "g", [], [helper.make_tensor_value_info(f"o{depth}", F, None)]
        )
    condition = numpy_helper.from_array(np.array(True), "c")
    outer = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    attack.ends(model([outer], [condition]).SerializeToString())


def test_wire_level_nesting_is_refused(attack: Attack) -> None:
    data = b""
    for _ in range(20_000):
        # A graph in an attribute in a node in a graph ...
        length = len(data)
        prefix = bytearray()
        while length > 0x7F:
            prefix.append(length & 0x7F | 0x80)
            length >>= 7
        prefix.append(length)
        data = b"\x32" + bytes(prefix) + data
        if len(data) > 200_000:
            break
    length = len(data)
    prefix = bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    attack.fails(b"\x08\x08\x3a" + bytes(prefix) + data)


def test_a_hundred_thousand_nodes_end_in_time(attack: Attack) -> None:
    nodes = [
        helper.make_node("Relu", ["x" if k == 0 else f"v{k - 1}"], [f"v{k}"])
        for k in range(100_000)
    ]
    nodes.append(helper.make_node("MatMul", [f"v{len(nodes) - 1}", "w"], ["y"]))
    attack.ends(model(nodes, [weight()]).SerializeToString())


def test_one_node_with_very_many_inputs_ends_in_time(attack: Attack) -> None:
    node = helper.make_node("Concat", ["x"] * 100_000, ["y"], axis=0)
    attack.ends(model([node]).SerializeToString())


@pytest.mark.parametrize("seed", range(6))
def test_damaged_protobuf_ends_cleanly(attack: Attack, seed: int) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    content = bytearray(model(nodes, [weight()]).SerializeToString())
    chance = random.Random(seed)
    for _ in range(1 + seed):
        content[chance.randrange(len(content))] = chance.randrange(256)
    attack.ends(bytes(content))


@pytest.mark.parametrize(
    "content", [b"\xff" * 1000, b"\x3a\xff\xff\xff\xff\xff\x7f", b"\x08" * 999, bytes(4096)]
)
def test_bytes_that_are_no_protobuf_are_refused(attack: Attack, content: bytes) -> None:
    assert attack.fails(content)["type"] == "invalid-model"


def test_an_unknown_operator_does_not_stop_the_rest(attack: Attack) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Nobody", ["h"], ["y"], domain="com.example"),
    ]
    made = model(nodes, [weight()])
    made.opset_import.add(domain="com.example", version=1)
    attack.ends(made.SerializeToString())


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol-buffer message that holds bytes."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


HALF = 15 << 19

FLOODS = {
    "empty initializers": field(7, b"\x2a\x00" * HALF),
    "empty operators": field(7, b"\x0a\x00" * HALF),
    "small initializers": field(7, field(5, field(8, b"w")) * (HALF // 3)),
    "fields beside the graph": b"\x08\x01" * HALF + field(7, b""),
    "graphs": b"\x3a\x00" * HALF,
    "dimensions": field(7, field(5, field(1, b"\x01" * 2 * HALF))),
    "dimensions one by one": field(7, field(5, b"\x08\x01" * HALF)),
    "element types": field(7, field(5, field(2, b"\x01" * 2 * HALF))),
    "no element type": field(7, field(5, field(2, b""))),
    "places of external data": field(7, field(5, b"\x6a\x00" * HALF)),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_fields_is_refused_at_the_door(attack: Attack, kind: str) -> None:
    problem = attack.fails(FLOODS[kind])
    assert problem["type"] == "invalid-model"
    assert "IndexError" not in problem["detail"]


def test_an_operator_without_inputs_is_named(attack: Attack) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Identity", [], [])]
    problem = attack.fails(model(nodes).SerializeToString())
    assert "Identity" in problem["detail"] and "IndexError" not in problem["detail"]


@pytest.mark.parametrize("length", [3_000_000, 10_000_000, 2**31 - 1])
def test_a_few_bytes_cannot_declare_a_large_graph(attack: Attack, length: int) -> None:
    content = model([helper.make_node("Relu", ["x"], ["y"])], shape=[1, length]).SerializeToString()
    assert len(content) < 100
    problem = attack.fails(content)
    assert problem["type"] in {"graph-too-large", "input-too-large"}
    if problem["type"] == "graph-too-large":
        assert problem["slices"] > problem["limit"] and "smaller shapes" in problem["detail"]
