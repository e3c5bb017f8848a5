"""One operator by itself: its outputs' shapes by ONNX's own rules, their values by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from torchpruner_core.errors import GraphError, InvalidModelError
from torchpruner_core.graph.dtypes import UNKNOWN, Shape, element_type, is_complete, read_type
from torchpruner_core.graph.nodes import OperatorRecord
from torchpruner_core.graph.values import Values
from torchpruner_core.graph.written import as_node_proto
from torchpruner_core.running import IR_VERSION, run


def infer_outputs(operator: OperatorRecord) -> list[tuple[Shape, str]]:
    """Return the shape and dtype of each output of one operator from its inputs alone.

    Raises ``GraphError`` where ONNX's rules do not decide them.
    """
    import onnx

    types = {
        node.value_name: onnx.helper.make_tensor_type_proto(
            element_type(node.dtype), list(node.shape)
        )
        for node in operator.in_data
        if node is not None
    }
    found = infer_node(operator.proto, types, operator.values, {})
    result = []
    for node in operator.out_data:
        shape, dtype = read_type(found[node.value_name]) if node.value_name in found else (None, "")
        if shape is None or UNKNOWN in shape:
            raise GraphError(
                f"the shape of {node.name} does not follow from the inputs of {operator.name}"
            )
        result.append((shape, dtype))
    return result


def stated_inputs(node: Any, opsets: Iterable[Any]) -> int:
    """Return how many inputs ``node``'s schema states; 0 where there is none, or any number."""
    import onnx

    domain = node.domain if node.domain != "ai.onnx" else ""
    versions = (entry.version for entry in opsets if entry.domain in (domain, node.domain))
    try:
        return _inputs_of_schema(node.op_type, next(versions, 1), domain)
    except onnx.defs.SchemaError:
        return 0


@lru_cache(4096)
def _inputs_of_schema(op_type: str, version: int, domain: str) -> int:
    import onnx

    schema = onnx.defs.get_schema(op_type, version, domain)
    last = schema.inputs[-1] if schema.inputs else None
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    return 0 if last is None or last.option == variadic else len(schema.inputs)


def infer_node(
    node: Any, types: dict[str, Any], values: Values, versions: dict[str, int]
) -> dict[str, Any]:
    """Return ``{output: TypeProto}`` by the schema of ``node``; empty where there is none, or it fails.

    Raises ``InvalidModelError`` where the inputs' shapes contradict each other.
    """
    import onnx

    domain = node.domain if node.domain != "ai.onnx" else ""
    try:
        version = versions.get(domain, onnx.defs.onnx_opset_version())
        schema = onnx.defs.get_schema(node.op_type, version, domain)
    except onnx.defs.SchemaError:
        return {}
    input_types = {name: types[name] for name in node.input if name in types}
    data = {}
    for name in node.input:
        shape = values.shapes.get(name)
        if name and shape is not None and len(shape) <= 1:
            value = values.known(name)
            if value is not None and value.dtype.kind in "iuf":
                data[name] = onnx.numpy_helper.from_array(value, name)
    try:
        return dict(
            onnx.shape_inference.infer_node_outputs(schema, as_node_proto(node), input_types, data)
        )
    except onnx.shape_inference.InferenceError as error:
        inputs_known = all(is_complete(read_type(given)) for given in input_types.values())
        if inputs_known and not any(a.HasField("g") for a in node.attribute):
            raise InvalidModelError(
                f"the shapes of the model do not fit together at {node.name or node.op_type!r}: "
                f"{str(error).splitlines()[0][:300]}; check the input shapes",
                operator=node.name or node.op_type,
            ) from error
        return {}
    except Exception:
        return {}


def run_operator(operator: OperatorRecord) -> list[Any]:
    """Return the outputs of one operator, computed from its inputs' ``data``.

    Raises ``GraphError`` where an input's data is missing: run ``graph.forward`` first.
    """
    import onnx

    missing = [node.name for node in operator.in_data if node is not None and node.data is None]
    if missing:
        raise GraphError(f"{operator.name} needs the data of {missing[0]}; run graph.forward first")
    given = [node for node in operator.in_data if node is not None]
    graph = onnx.helper.make_graph(
        [as_node_proto(operator.proto)],
        "one",
        [_value_info(node.value_name, node.data) for node in dict.fromkeys(given)],
        [onnx.ValueInfoProto(name=node.value_name) for node in operator.out_data],
    )
    opsets = [onnx.helper.make_opsetid(e.domain, e.version) for e in operator.values.opsets]
    model = onnx.helper.make_model(graph, opset_imports=opsets)
    model.ir_version = IR_VERSION
    feeds = {node.value_name: node.data for node in given}
    results = run(model.SerializeToString(), feeds, operator.device)
    return [results[node.value_name] for node in operator.out_data]


def _value_info(name: str, data: Any) -> Any:
    import onnx

    return onnx.helper.make_tensor_value_info(
        name, onnx.helper.np_dtype_to_tensor_dtype(data.dtype), data.shape
    )
