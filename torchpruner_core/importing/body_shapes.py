"""Shapes at the borders of control flow: into a body, around a loop, and out again.

Sources: https://onnx.ai/onnx/operators/onnx__If.html, onnx__Loop.html, onnx__Scan.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from torchpruner_core.importing.bodies import bodies_of, flatten, is_flattened

Types = dict[str, Any]
"""Value name -> TypeProto."""


class Asking(Protocol):
    """What knows types: ``ask`` infers those of a node's outputs, ``learn`` takes note of one."""

    types: Types
    tolerant: bool

    def ask(self, node: Any) -> None: ...

    def learn(self, name: str) -> None: ...


def visit(nodes: Iterable[Any], asking: Asking) -> None:
    """Ask every node, bodies included, in the order they run.

    What a loop carries has the shape it begins with, less the sizes that an iteration changes.
    """
    types = asking.types
    for node in nodes:
        if not is_flattened(node):
            asking.ask(node)
            continue
        tolerant = asking.tolerant
        asking.tolerant |= node.op_type == "If"
        for body in bodies_of(node):
            _enter(node, body, types)
            for info in body.input:
                asking.learn(info.name)
            visit(body.node, asking)
            if node.op_type != "If" and _loosened(node, body, types):
                for inner in flatten(body):
                    for name in inner.output:
                        types.pop(name, None)
                for info in body.input:
                    asking.learn(info.name)
                visit(body.node, asking)
        asking.tolerant = tolerant
        for name, found in _outputs(node, types).items():
            types[name] = found
            asking.learn(name)


def carried(node: Any, body: Any) -> list[tuple[str, str, str, str]]:
    """Return ``(initial, in the body, of the body, final)`` of each value that a loop carries.

    ``final`` is empty where nobody asks for it.
    """
    if node.op_type == "Loop":
        count, first_in, first_out, skipped = len(body.input) - 2, 2, 1, 2
    else:
        count = len(body.input) - _number(node, "num_scan_inputs")
        first_in, first_out, skipped = 0, 0, 0
    outputs = [*node.output, *[""] * len(body.output)]
    return [
        (
            node.input[skipped + k],
            body.input[first_in + k].name,
            body.output[first_out + k].name,
            outputs[k],
        )
        for k in range(count)
    ]


def is_regular(node: Any) -> bool:
    """Return whether a loop's body fits its operator (``Scan`` of operator set 8 has batches)."""
    body = bodies_of(node)[0]
    return len(node.input) == len(body.input)


def _enter(node: Any, body: Any, types: Types) -> None:
    import onnx

    if node.op_type == "If" or not is_regular(node):
        return
    if node.op_type == "Loop":
        types[body.input[0].name] = onnx.helper.make_tensor_type_proto(onnx.TensorProto.INT64, [])
        types[body.input[1].name] = onnx.helper.make_tensor_type_proto(onnx.TensorProto.BOOL, [])
    for initial, inner, _, _ in carried(node, body):
        if initial in types:
            types[inner] = types[initial]
    if node.op_type == "Scan":
        for name, (inner, axis) in scanned_inputs(node, body).items():
            if name in types and types[name].tensor_type.HasField("shape"):
                dims = list(types[name].tensor_type.shape.dim)
                dims.pop(axis % len(dims))
                types[inner] = _tensor(types[name].tensor_type.elem_type, dims)


def _loosened(node: Any, body: Any, types: Types) -> bool:
    """Forget the sizes that one iteration changes; return whether there were any."""
    changed = False
    if not is_regular(node):
        return False
    for _, inner, outer, _ in carried(node, body):
        if inner in types and outer in types:
            merged = merge(types[inner], types[outer])
            if merged != types[inner]:
                types[inner] = merged
                changed = True
    return changed


def merge(a: Any, b: Any) -> Any:
    """Return the type that both are: sizes where they agree, no rank where that differs."""
    left, right = a.tensor_type, b.tensor_type
    if not left.HasField("shape") or not right.HasField("shape"):
        return _tensor(left.elem_type, None)
    if len(left.shape.dim) != len(right.shape.dim):
        return _tensor(left.elem_type, None)
    pairs = zip(left.shape.dim, right.shape.dim, strict=True)
    known = [x if x.HasField("dim_value") and x == y else type(x)() for x, y in pairs]
    return _tensor(left.elem_type, known)


def _outputs(node: Any, types: Mapping[str, Any]) -> dict[str, Any]:
    import onnx

    bodies = bodies_of(node)
    found: dict[str, Any] = {}
    if node.op_type == "If":
        for k, name in enumerate(node.output):
            inner = [body.output[k].name for body in bodies]
            if name and all(value in types for value in inner):
                found[name] = merge(types[inner[0]], types[inner[-1]])
        return found
    if not is_regular(node):
        return {}
    body = bodies[0]
    states = carried(node, body)
    for _, before, after, final in states:
        if final and after in types:
            found[final] = merge(types.get(before, types[after]), types[after])
    first = len(states) + (node.op_type == "Loop")
    axes = _axes(node, "scan_output_axes", len(body.output) - first)
    length = onnx.TensorShapeProto.Dimension()
    if node.op_type == "Scan":
        for name, (_, axis) in scanned_inputs(node, body).items():
            if name in types and types[name].tensor_type.HasField("shape"):
                dims = types[name].tensor_type.shape.dim
                length = dims[axis % len(dims)]
    for k, info in enumerate(body.output[first:]):
        position = len(states) + k
        name = node.output[position] if position < len(node.output) else ""
        if name and info.name in types:
            inner_type = types[info.name].tensor_type
            if inner_type.HasField("shape"):
                dims = list(inner_type.shape.dim)
                dims.insert(axes[k] % (len(dims) + 1), length)
                found[name] = _tensor(inner_type.elem_type, dims)
            else:
                found[name] = _tensor(inner_type.elem_type, None)
    return found


def scanned_inputs(node: Any, body: Any) -> dict[str, tuple[str, int]]:
    """Return, for each input that a ``Scan`` runs along, its name in the body and the axis."""
    count = _number(node, "num_scan_inputs")
    axes = _axes(node, "scan_input_axes", count)
    outer, inner = list(node.input)[-count:], [info.name for info in body.input][-count:]
    return {o: (i, axis) for o, i, axis in zip(outer, inner, axes, strict=True)}


def _axes(node: Any, name: str, count: int) -> list[int]:
    found = [list(a.ints) for a in node.attribute if a.name == name]
    return found[0] if found and found[0] else [0] * count


def _number(node: Any, name: str) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), 0)


def _tensor(element: int, dims: Any) -> Any:
    import onnx

    made = onnx.TypeProto()
    made.tensor_type.elem_type = element
    if dims is not None:
        made.tensor_type.shape.SetInParent()
        for dim in dims:
            made.tensor_type.shape.dim.add().CopyFrom(dim)
    return made
