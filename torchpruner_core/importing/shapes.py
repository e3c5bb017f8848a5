"""Every tensor's shape from one pass over a weightless model.

ONNX's own inference gives most of them at once. What it leaves open depends on computed shapes;
those operators are asked again one by one, with the constants that :mod:`.values` evaluates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchpruner_core.errors import InvalidModelError
from torchpruner_core.graph.dtypes import UNKNOWN, Shape, dtype_name, is_complete, read_type
from torchpruner_core.graph.values import Values, attributes
from torchpruner_core.importing.custom_shapes import custom_types
from torchpruner_core.operators.alone import infer_node

if TYPE_CHECKING:
    import onnx


def infer_shapes(model: onnx.ModelProto, values: Values) -> dict[str, tuple[Shape | None, str]]:
    """Return ``{value name: (shape, dtype)}`` for the main graph; shape ``None`` has no known rank.

    Fills ``values.shapes``. Raises ``InvalidModelError`` where the model contradicts itself.
    """
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(
            _with_known_operands(model, values), data_prop=True
        )
    except Exception as error:
        raise InvalidModelError(
            f"the shapes of the model do not fit together: {str(error).splitlines()[0][:300]}; "
            "check the input shapes"
        ) from error
    found: dict[str, tuple[Shape | None, str]] = {}
    types: dict[str, Any] = {}
    for info in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        types[info.name] = info.type
        found[info.name] = read_type(info.type)
    for tensor in model.graph.initializer:
        found[tensor.name] = tuple(tensor.dims), dtype_name(tensor.data_type)
    # An output's declared shape may say less than its operator does.
    declared = {info.name for info in model.graph.output}
    asked = [
        node
        for node in model.graph.node
        if not declared.isdisjoint(node.output)
        or not all(is_complete(found.get(name)) for name in node.output if name)
    ]
    read = {name for node in asked for name in node.input}
    for tensor in model.graph.initializer:
        if tensor.name in read:
            element, dims = tensor.data_type, list(tensor.dims)
            types[tensor.name] = onnx.helper.make_tensor_type_proto(element, dims)
    shapes = values.shapes
    shapes.update({name: shape for name, (shape, _) in found.items()})
    values.dtypes.update({name: dtype for name, (_, dtype) in found.items()})
    parts: dict[str, list[Shape]] = {}
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for node in asked:
        if node.op_type == "SplitToSequence":
            parts[node.output[0]] = _sequence_parts(node, values)
        inferred_types = _infer_node(node, types, values, versions)
        if node.op_type == "SequenceAt" and parts.get(node.input[0]):
            at = values.known(node.input[1])
            if at is not None and int(at) < len(parts[node.input[0]]):
                element = inferred_types[node.output[0]].tensor_type.elem_type
                shape = parts[node.input[0]][int(at)]
                typed = onnx.helper.make_tensor_type_proto(element, list(shape))
                inferred_types = {node.output[0]: typed}
        if node.op_type in ("ConstantOfShape", "Expand"):
            _use_partial_shape(node, inferred_types, values)
        for name, type_proto in inferred_types.items():
            shape_and_dtype = read_type(type_proto)
            if is_complete(found.get(name)):
                continue
            if shape_and_dtype[0] is not None or name not in found:
                types[name] = type_proto
                found[name] = shape_and_dtype
                shapes[name] = shape_and_dtype[0]
        for name in node.output:
            if name and not is_complete(found.get(name)):
                value = values.known(name)
                if value is not None:
                    dtype = str(value.dtype)
                    found[name] = tuple(value.shape), dtype
                    shapes[name] = tuple(value.shape)
                    types[name] = onnx.helper.make_tensor_type_proto(
                        onnx.helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape)
                    )
    return found


def _use_partial_shape(node: Any, types: dict[str, Any], values: Values) -> None:
    """Write into an operator's inferred type the sizes that are known one by one."""
    asked = values.partial(node.input[-1])
    tensor = types[node.output[0]].tensor_type if node.output[0] in types else None
    if asked is None or tensor is None or len(tensor.shape.dim) != len(asked):
        return
    for dim, size in zip(tensor.shape.dim, asked, strict=True):
        # An Expand leaves a size of the input where one is asked for.
        if not dim.HasField("dim_value") and size > (1 if node.op_type == "Expand" else 0):
            dim.dim_value = size


def _sequence_parts(node: Any, values: Values) -> list[Shape]:
    """Return the shapes of a split's parts; none where they are not known."""
    given = attributes(node)
    shape = values.shapes.get(node.input[0])
    if shape is None or UNKNOWN in shape:
        return []
    axis = given.get("axis", 0) % len(shape)
    split = values.known(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    if split is None:
        if len(node.input) > 1 and node.input[1]:
            return []
        kept = [1] if given.get("keepdims", 1) else []
        return [(*shape[:axis], *kept, *shape[axis + 1 :])] * shape[axis]
    sizes = [int(n) for n in split.ravel().tolist()]
    if split.ndim == 0:
        sizes = [min(sizes[0], shape[axis] - at) for at in range(0, shape[axis], sizes[0])]
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


SHAPE_OPERANDS = {
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    **dict.fromkeys(
        (
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
        ),
        (1,),
    ),
}
"""The inputs whose contents decide an operator's output shape."""


def _with_known_operands(model: onnx.ModelProto, values: Values) -> onnx.ModelProto:
    """Return ``model`` with computed operands that are constants stored as such.

    ONNX's inference reads stored constants only; with these in place one pass resolves nearly
    every shape, where it would stop at the first computed one.
    """
    import onnx

    found: list[tuple[int, int, str]] = []
    for number, node in enumerate(model.graph.node):
        for position in SHAPE_OPERANDS.get(node.op_type, ()):
            name = node.input[position] if position < len(node.input) else ""
            producer = values.producers.get(name)
            if producer is not None and producer.op_type != "Constant":
                found.append((number, position, name))
    known = values.constants(dict.fromkeys(name for _, _, name in found))
    if not known:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for name, value in known.items():
        copy.graph.initializer.append(onnx.numpy_helper.from_array(value, f"{name}#known"))
    for number, position, name in found:
        if name in known:
            copy.graph.node[number].input[position] = f"{name}#known"
    return copy


def _infer_node(
    node: Any, types: dict[str, Any], values: Values, versions: dict[str, int]
) -> dict[str, Any]:
    found = infer_node(node, types, values, versions)
    if found and all(is_complete(read_type(found[name])) for name in node.output if name in found):
        return found
    return found | custom_types(node, types, values)
