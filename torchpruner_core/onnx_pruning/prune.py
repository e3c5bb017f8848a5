"""A pruned ONNX model: shorter tensors, and every constant that counts them rewritten.

The result is read back and every shape in it compared with what the cut says, so a model that is
returned is the one that was promised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchpruner_core.cut_dict import Cut, read_cut
from torchpruner_core.cut_result import CutResult, TensorSpec
from torchpruner_core.errors import GraphError
from torchpruner_core.graph.dtypes import np_dtype
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.importing.bodies import all_graphs, flatten, graphs_of
from torchpruner_core.importing.importer import SHAPE_OPERATORS, read_graph
from torchpruner_core.importing.wire import strip_weights
from torchpruner_core.onnx_pruning.counts import counts_of_statistics
from torchpruner_core.onnx_pruning.loading import check_loads, check_valid
from torchpruner_core.onnx_pruning.open_sizes import declare_fixed_sizes
from torchpruner_core.onnx_pruning.rewrite import Mended, new_constants
from torchpruner_core.onnx_pruning.selected import follow_open_sizes, select_kept
from torchpruner_core.onnx_pruning.sliced import (
    OpenModel,
    computed_after,
    constant_values,
    open_model,
    separate_equals,
    set_shapes,
    stored_array,
)

if TYPE_CHECKING:
    import onnx

    from torchpruner_core.graph.nodes import OperatorRecord
    from torchpruner_core.graph.values import Values
    from torchpruner_core.operators.base import OperatorNode


PART_OF_ONE = frozenset(
    {"Cast", "Gather", "Identity", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators whose output holds elements of one tensor."""


def prune_onnx(data: bytes, result: Cut) -> bytes:
    """Return the ONNX model ``data`` with ``result`` cut out of it.

    ``data`` holds its weights; ``result`` came from its own graph. The model returned passes
    ``onnx.checker``, has the shapes that ``result`` lists, and loads in onnxruntime where that is
    installed. Sizes that ``data`` leaves open (``dim_param``) stay open; where a constant must be written
    down at the sizes of the analysis, the model declares those, and a ``FixedSizesWarning`` says why.

    Raises ``CutError`` where the two do not belong together, ``GraphError`` where a constant
    cannot be rewritten.
    """
    result = read_cut(result)
    opened = open_model(data, result)
    pruned = edited(opened, data, result)
    check_valid(pruned)
    check_loads(pruned, data)
    return pruned


def edited(opened: OpenModel, data: bytes, result: CutResult) -> bytes:
    """Return ``opened``, which was ``data``, as it is after the cut, with every shape verified.

    Weights that lie outside it have their new dims, and no contents.
    """
    opened.computed = computed_after(opened)
    _cut_constants(opened)
    _cut_initializers(opened)
    _rewrite_operators(opened, result)
    _keep_measured(opened)
    _drop_unused(opened.model)
    set_shapes(opened.model, opened)
    pruned: bytes = opened.model.SerializeToString()
    _verify_shapes(opened, pruned, result)
    return declare_fixed_sizes(opened, data, pruned, result) if opened.is_open else pruned


def _cut_constants(opened: OpenModel) -> None:
    """Replace constants of the program that are cut, stored or computed, by shorter ones."""
    computed = [
        node.value_name
        for op in opened.graph.operators.values()
        if op.is_constant and not _is_filled_open(opened, op)
        for node in op.out_data
        if node.value_name in opened.cuts or _reads_cut(opened, op)
    ]
    parts = [
        node.value_name
        for op in opened.graph.operators.values()
        if op.is_constant and op.type in PART_OF_ONE and _is_filled_open(opened, op)
        for node in op.out_data
        if node.value_name in opened.cuts and not _reads_cut(opened, op)
    ]
    separate_equals(opened)
    for node in flatten(opened.model.graph):
        if node.op_type == "Constant" and node.output[0] in {*opened.cuts, *opened.renumbers}:
            computed.append(node.output[0])
    names = list(dict.fromkeys(computed))
    followers = set(names) & follow_open_sizes(opened)
    values = constant_values(opened, [name for name in names if name not in followers])
    for name, value in values.items():
        _replace_value(opened, name, opened.after(name, value))
    for name in (*parts, *(name for name in names if name in followers)):
        select_kept(opened, name)


def _is_filled_open(opened: OpenModel, operator: OperatorRecord) -> bool:
    """Return whether a constant is repeated to sizes that the program computes, some of them open.

    The zeros that a recurrent layer begins with are as many as the batch: their sizes are mended. Parts
    of a filled tensor are as good as the whole.
    """
    if not opened.is_open:
        return False
    if operator.type in PART_OF_ONE:
        x = operator.in_data[0]
        producer = None if x is None else x.in_operator
        return producer is not None and producer.is_constant and _is_filled_open(opened, producer)
    shape = operator.in_data[-1] if operator.type in ("ConstantOfShape", "Expand") else None
    return shape is not None and shape.in_operator is not None


def _reads_cut(opened: OpenModel, operator: OperatorNode) -> bool:
    """Return whether an operator that computes a constant reads one that becomes shorter."""
    if operator.type in SHAPE_OPERATORS:
        return False
    read = operator.in_data[:1] if operator.type == "CastLike" else operator.in_data
    return any(node is not None and node.value_name in opened.cuts for node in read)


def _replace_value(opened: OpenModel, name: str, value: Any) -> None:
    """Store ``value`` under ``name`` in place of what computes it."""
    import onnx

    model = opened.model
    opened.replaced[name] = value
    for node in flatten(model.graph):
        for position, output in enumerate(node.output):
            if output == name:
                node.output[position] = f"{name}#unused"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, order="C"), name))


def _cut_initializers(opened: OpenModel) -> None:
    import onnx

    done = {
        node.value_name
        for op in opened.graph.operators.values()
        if op.is_constant
        for node in op.out_data
    }
    constants = {
        n.output[0].removesuffix("#unused")
        for n in flatten(opened.model.graph)
        if n.op_type == "Constant"
    }
    for tensor in opened.model.graph.initializer:
        changes = tensor.name in opened.cuts or tensor.name in opened.renumbers
        if not changes or tensor.name in done | constants:
            continue
        if tensor.name in opened.outside:
            tensor.dims[:] = opened.dims_after(tensor)
            continue
        value = opened.after(tensor.name, stored_array(tensor))
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))


def _rewrite_operators(opened: OpenModel, result: CutResult) -> None:
    import onnx

    by_output = {o: node for node in flatten(opened.model.graph) for o in node.output}
    for operator in opened.graph.operators.values():
        if operator.is_constant and not _is_filled_open(opened, operator):
            continue
        found = new_constants(opened, operator, dict(result.operator.get(operator.name, {})))
        if not found:
            continue
        node = by_output[operator.proto.output[0]]
        if node.op_type == "Squeeze" and not any(len(axes) for axes in found.values()):
            # No axes at all would read as every axis of one slice.
            node.op_type = "Identity"
            continue
        for key, value in found.items():
            if isinstance(key, str):
                kept = [a for a in node.attribute if a.name != key]
                del node.attribute[:]
                node.attribute.extend(
                    [*kept, onnx.helper.make_attribute(key, np.asarray(value).tolist())]
                )
                continue
            if isinstance(value, Mended):
                _mend(opened, node, key, value)
                continue
            name = opened.fresh(f"{operator.proto.output[0]}#{key}")
            opened.model.graph.initializer.append(
                onnx.numpy_helper.from_array(np.asarray(value), name)
            )
            while len(node.input) <= key:
                node.input.append("")
            node.input[key] = name
        if node.op_type == "Split" and 1 in found:
            kept = [a for a in node.attribute if a.name not in ("num_outputs", "split")]
            del node.attribute[:]
            node.attribute.extend(kept)


def _mend(opened: OpenModel, node: Any, position: int, mended: Mended) -> None:
    """Put a selection between a shape that data decides in part and the operator that reads it."""
    import onnx

    prefix = f"{node.output[0]}#{position}"
    stored = {"known": mended.known, "sizes": mended.value}
    names = {key: opened.fresh(f"{prefix}{key}") for key in stored}
    for key, value in stored.items():
        opened.model.graph.initializer.append(onnx.numpy_helper.from_array(value, names[key]))
    result = opened.fresh(f"{prefix}mended")
    made = onnx.helper.make_node(
        "Where", [names["known"], names["sizes"], node.input[position]], [result]
    )
    for graph in all_graphs(opened.model.graph):
        names_made = [list(other.output) for other in graph.node]
        if list(node.output) in names_made:
            place = names_made.index(list(node.output))
            graph.node.insert(place, made)
            graph.node[place + 1].input[position] = result
            return


def _keep_measured(opened: OpenModel) -> None:
    """Store numbers that are computed from the sizes of tensors, where a cut would change them.

    The scale of attention, one over the root of a head's size, is often read off the tensor as it
    runs; what is left must be computed as before.
    """
    values, after = opened.graph.values, opened.computed
    if values is None or after is None:
        return
    counts = {node.name for node in counts_of_statistics(opened.graph.operators.values())}
    for node in opened.graph.nodes.values():
        if node.name in counts or not _is_measured(node, values):
            continue
        before, changed = values.known(node.value_name), after.known(node.value_name)
        if before is not None and (changed is None or not np.array_equal(before, changed)):
            _replace_value(opened, node.value_name, before.astype(np_dtype(node.dtype)))


def _is_measured(node: DataNode, values: Values) -> bool:
    """Return whether data meets a real number that follows from the sizes of tensors."""
    producer = node.in_operator
    if (
        producer is None
        or not producer.is_constant
        or not node.dtype.startswith(("float", "bfloat"))
    ):
        return False
    if any(size != 1 for size in node.shape) or all(op.is_constant for op in node.out_operators):
        return False
    adapts = values.adapts(node.value_name)
    return adapts is not None and bool(adapts.any())


def _drop_unused(model: onnx.ModelProto) -> None:
    """Drop nodes and initializers that nothing reads any more, those of bodies included."""
    wanted = _drop_unused_nodes(model.graph)
    for position in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[position].name not in wanted:
            del model.graph.initializer[position]


def _drop_unused_nodes(graph: Any) -> set[str]:
    """Drop from a graph the nodes that nothing reads; return the names that the others read."""
    wanted = {info.name for info in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(output in wanted for output in node.output):
            kept.append(_copy(node))
            for body in graphs_of(kept[-1]):
                wanted.update(_drop_unused_nodes(body))
            wanted.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    return wanted


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _verify_shapes(opened: OpenModel, pruned: bytes, result: CutResult) -> None:
    inputs = [
        TensorSpec(node.value_name, opened.shape_after(node), node.dtype)
        for node in opened.graph.inputs
    ]
    after = read_graph(strip_weights(pruned), inputs)
    expected = {node.value_name: opened.shape_after(node) for node in opened.graph.nodes.values()}
    for node in after.nodes.values():
        wanted = expected.get(node.value_name)
        if wanted is not None and -1 not in (*wanted, *node.shape) and node.shape != wanted:
            raise GraphError(
                f"the pruned model gives {node.value_name!r} the shape {list(node.shape)} where the "
                f"cut says {list(wanted)}; a constant near {node.module} could not be rewritten",
                node=node.name,
                expected=list(wanted),
                received=list(node.shape),
            )
