"""Every tensor's shape from one pass over a weightless model.

ONNX's own inference gives most of them at once. What it leaves open depends on computed shapes;
those operators are asked again one by one, with the constants that :mod:`.values` evaluates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torchpruner_core.errors import InvalidModelError
from torchpruner_core.graph.dtypes import (
    UNKNOWN,
    Shape,
    dtype_name,
    element_type,
    is_complete,
    read_type,
)
from torchpruner_core.graph.values import Values, attributes
from torchpruner_core.graph.written import WrittenModel
from torchpruner_core.importing.bodies import all_graphs, flatten, has_graphs, is_flattened
from torchpruner_core.importing.body_shapes import visit
from torchpruner_core.importing.custom_shapes import custom_types
from torchpruner_core.operators.alone import infer_node

if TYPE_CHECKING:
    import onnx


Known = Mapping[str, tuple[Shape, str]]
"""What the maker of a model says of its values: shape and dtype by name."""


def complete_shapes(
    model: onnx.ModelProto | WrittenModel, values: Values, known: Known
) -> dict[str, tuple[Shape | None, str]]:
    """Return what :func:`infer_shapes` does, of a model most of whose shapes are ``known``."""
    found: dict[str, tuple[Shape | None, str]] = dict(known)
    values.shapes.update({name: shape for name, (shape, _) in known.items()})
    values.dtypes.update({name: dtype for name, (_, dtype) in known.items()})
    asking = _Asking(model, values, found, _Types(known))
    for node in model.graph.node:
        if not all(name in known for name in node.output if name):
            asking.ask(node)
    return found


class _Types(dict[str, Any]):
    """ONNX's types, made from known shapes where they are asked for."""

    def __init__(self, known: Known) -> None:
        super().__init__()
        self._known = known

    def __missing__(self, name: str) -> Any:
        import onnx

        shape, dtype = self._known[name]
        self[name] = made = onnx.helper.make_tensor_type_proto(element_type(dtype), list(shape))
        return made

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._known


def infer_shapes(model: onnx.ModelProto, values: Values) -> dict[str, tuple[Shape | None, str]]:
    """Return ``{value name: (shape, dtype)}`` for the main graph; shape ``None`` has no known rank.

    Fills ``values.shapes``. Raises ``InvalidModelError`` where the model contradicts itself.
    """
    import onnx

    nested = has_graphs(model)
    inferred = _infer_whole(model, values)
    found: dict[str, tuple[Shape | None, str]] = {}
    types: dict[str, Any] = {}
    for graph in all_graphs(inferred.graph) if nested else (inferred.graph,):
        for info in (*graph.input, *graph.value_info, *graph.output):
            types[info.name] = info.type
            found[info.name] = read_type(info.type)
    for tensor in model.graph.initializer:
        found[tensor.name] = tuple(tensor.dims), dtype_name(tensor.data_type)
    # An output's declared shape may say less than its operator does.
    declared = {info.name for info in model.graph.output}
    asked = [
        node
        for node in (flatten(model.graph) if nested else model.graph.node)
        if is_flattened(node)
        or not declared.isdisjoint(node.output)
        or not all(is_complete(found.get(name)) for name in node.output if name)
    ]
    read = {name for node in asked for name in node.input}
    for tensor in model.graph.initializer:
        if nested or tensor.name in read:
            element, dims = tensor.data_type, list(tensor.dims)
            types[tensor.name] = onnx.helper.make_tensor_type_proto(element, dims)
    shapes = values.shapes
    shapes.update({name: shape for name, (shape, _) in found.items()})
    values.dtypes.update({name: dtype for name, (_, dtype) in found.items()})
    asking = _Asking(model, values, found, types)
    if nested:
        visit(model.graph.node, asking)
    else:
        for node in asked:
            asking.ask(node)
    return found


def _infer_whole(model: onnx.ModelProto, values: Values) -> onnx.ModelProto:
    """Return ``model`` with the types that ONNX's own inference finds in one pass."""
    import onnx

    known = _with_known_operands(model, values)
    try:
        return onnx.shape_inference.infer_shapes(known, data_prop=True)
    except Exception as error:
        # Files are wrong about their own outputs more often than about their operators.
        open_ended = onnx.ModelProto()
        open_ended.CopyFrom(known)
        for info in open_ended.graph.output:
            if info.type.HasField("tensor_type"):
                info.type.tensor_type.ClearField("shape")
        try:
            return onnx.shape_inference.infer_shapes(open_ended, data_prop=True)
        except Exception:
            raise InvalidModelError(
                f"the shapes of the model do not fit together: {str(error).splitlines()[0][:300]}; "
                "check the input shapes"
            ) from error


class _Asking:
    """Operators asked one by one, where the pass over the whole model left their outputs open."""

    def __init__(
        self,
        model: onnx.ModelProto | WrittenModel,
        values: Values,
        found: dict[str, tuple[Shape | None, str]],
        types: dict[str, Any],
    ) -> None:
        self.values, self.found, self.types = values, found, types
        self.parts: dict[str, list[Shape]] = {}
        self.versions = {entry.domain: entry.version for entry in model.opset_import}
        self.tolerant = False
        """Whether shapes that do not fit are left open: in a branch that need not run for these inputs."""

    def learn(self, name: str) -> None:
        """Take the type that a border of control flow says."""
        if name in self.types:
            self.found[name] = read_type(self.types[name])
            self.values.shapes[name], self.values.dtypes[name] = self.found[name]

    def ask(self, node: Any) -> None:
        import onnx

        values, found, types = self.values, self.found, self.types
        shapes = values.shapes
        if node.op_type == "SplitToSequence":
            self.parts[node.output[0]] = _sequence_parts(node, values)
        try:
            inferred_types = _infer_node(node, types, values, self.versions)
        except InvalidModelError:
            if not self.tolerant:
                raise
            inferred_types = {}
        parts = self.parts.get(node.input[0]) if node.op_type == "SequenceAt" else None
        if parts:
            at = values.known(node.input[1])
            if at is not None and int(at) < len(parts):
                element = inferred_types[node.output[0]].tensor_type.elem_type
                typed = onnx.helper.make_tensor_type_proto(element, list(parts[int(at)]))
                inferred_types = {node.output[0]: typed}
        if node.op_type in ("ConstantOfShape", "Expand"):
            _use_partial_shape(node, inferred_types, values)
        for name, type_proto in inferred_types.items():
            shape_and_dtype = read_type(type_proto)
            if name in types and is_complete(found.get(name)):
                continue
            if name not in types or shape_and_dtype[0] is not None or name not in found:
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
