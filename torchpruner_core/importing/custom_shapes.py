"""Shapes that ONNX has no rule for: the operator's class says them in ``fill_shape``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchpruner_core.errors import GraphError
from torchpruner_core.graph.dtypes import np_dtype, read_type
from torchpruner_core.graph.nodes import DataNode, OperatorRecord
from torchpruner_core.graph.values import Values, attributes
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.registry import operator_register

if TYPE_CHECKING:
    from collections.abc import Mapping


def custom_types(node: Any, types: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """Return ``{output: TypeProto}`` of a node whose registered class overrides ``fill_shape``.

    Empty where there is no such class, or where an input's shape is not known yet. Raises
    ``GraphError`` where ``fill_shape`` fails.
    """
    import onnx

    operator_class = operator_register.get(node.op_type, node.domain)
    if operator_class.fill_shape is OperatorNode.fill_shape:
        return {}
    in_data: list[DataNode | None] = []
    for name in node.input:
        shape, dtype = read_type(types[name]) if name in types else (None, "")
        if name and shape is None:
            return {}
        in_data.append(DataNode(name, name, shape or (), dtype, "intermediate") if name else None)
    first = next((read.dtype for read in in_data if read is not None), "float32")
    out_data = [DataNode(name, name, (), first, "intermediate") for name in node.output if name]
    name = node.name or node.op_type
    operator = operator_class(
        OperatorRecord(name, node.op_type, "", attributes(node), in_data, out_data, 0, values, node)
    )
    try:
        operator.fill_shape()
    except Exception as error:
        raise GraphError(
            f"fill_shape of {operator_class.__name__}, registered for {node.op_type}, failed at "
            f"{name}: {error!r}; it sets the shape and dtype of self.out_data from self.in_data",
            operator=name,
        ) from error
    return {
        out.value_name: onnx.helper.make_tensor_type_proto(
            int(onnx.helper.np_dtype_to_tensor_dtype(np_dtype(out.dtype))), list(out.shape)
        )
        for out in operator.out_data
    }
