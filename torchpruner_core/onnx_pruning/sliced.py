"""An ONNX model opened together with its graph and a cut, to be edited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.cut_result import AxisCuts, CutResult, Renumbering, TensorSpec
from torchpruner_core.errors import CutError, GraphError, InvalidModelError
from torchpruner_core.graph.dtypes import element_type
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.importing.bodies import all_graphs, flatten
from torchpruner_core.importing.external_data import unpacked
from torchpruner_core.importing.folding import apply_decisions
from torchpruner_core.importing.importer import ImportedGraph, read_graph
from torchpruner_core.importing.parsing import parse
from torchpruner_core.importing.wire import strip_weights

if TYPE_CHECKING:
    import onnx

    from torchpruner_core.graph.values import Values

Array = NDArray[Any]
ReadTensor = Callable[[], Any]


@dataclass(slots=True)
class OpenModel:
    """``model`` holds the weights, ``graph`` the names and shapes, ``cuts`` what goes, by value name."""

    model: onnx.ModelProto
    graph: ImportedGraph
    cuts: dict[str, AxisCuts]
    renumbers: dict[str, Renumbering] = field(default_factory=dict)
    """How stored positions follow, by value name."""
    computed: Values | None = None
    """The constants as they come out in the edited model, whose shapes may be others."""
    replaced: dict[str, Array] = field(default_factory=dict)
    """Values that the edited model stores instead of computing them."""
    outside: dict[str, ReadTensor] = field(default_factory=dict)
    """Reads, as they were before the cut, the weights that lie in other files, by value name."""
    is_open: bool = False
    """Whether the file leaves sizes of its inputs open."""
    _taken: set[str] = field(default_factory=set)

    def shape_after(self, node: DataNode) -> tuple[int, ...]:
        """Return a tensor's shape after the cut."""
        cuts = self.cuts.get(node.value_name)
        if cuts is None:
            return node.shape
        return tuple(
            n - (0 if c is None else len(c)) for n, c in zip(node.shape, cuts, strict=True)
        )

    def removed(self, node: DataNode | None, dim: int) -> NDArray[np.int64]:
        """Return the sorted indices that go along an axis, shape ``(k,)``."""
        cuts = self.cuts.get(node.value_name) if node is not None else None
        found = cuts[dim] if cuts is not None else None
        return np.empty(0, dtype=np.int64) if found is None else found

    def after(self, name: str, value: Array) -> Array:
        """Return a stored tensor's contents after the cut."""
        left = cut_array(value, self.cuts.get(name, []))
        renumbering = self.renumbers.get(name)
        return left if renumbering is None else renumbering.apply(left)

    def dims_after(self, tensor: onnx.TensorProto) -> list[int]:
        """Return a stored tensor's dims after the cut."""
        cuts = self.cuts.get(tensor.name) or [None] * len(tensor.dims)
        return [n - (0 if c is None else len(c)) for n, c in zip(tensor.dims, cuts, strict=True)]

    def fresh(self, name: str) -> str:
        """Return ``name``, or one like it that the model does not use yet.

        A model that was pruned before holds the names of that time.
        """
        graph = self.model.graph
        if not self._taken:
            self._taken.update(tensor.name for tensor in graph.initializer)
            self._taken.update(output for node in flatten(graph) for output in node.output)
        candidates = (f"{name}_{k}" if k else name for k in count())
        found = next(candidate for candidate in candidates if candidate not in self._taken)
        self._taken.add(found)
        return found

    def stored(self) -> dict[str, onnx.TensorProto]:
        """Return the model's initializers by name."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    def read(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        """Return an initializer with its contents, wherever those lie."""
        reader = self.outside.get(tensor.name)
        return tensor if reader is None else reader()


def open_model(
    data: bytes, result: CutResult, outside: Mapping[str, ReadTensor] | None = None
) -> OpenModel:
    """Return ``data`` opened for ``result``; raises ``CutError`` where they do not belong together.

    ``outside`` reads the weights that ``data`` comes without.
    """
    data = unpacked(data)
    # By order: the result may come from another export of the model, with other names.
    inputs = [TensorSpec("", spec.shape, spec.dtype, spec.value) for spec in result.inputs]
    graph = read_graph(strip_weights(data), inputs or None)
    model = parse(data)
    apply_decisions(model, graph.decided)
    cuts: dict[str, AxisCuts] = {}
    for name, axes in (*result.terminal.items(), *result.iner.items()):
        node = graph.nodes.get(name)
        expected = result.shapes.get(name)
        if node is None or (expected and expected != node.shape):
            found = "is not there" if node is None else f"has the shape {list(node.shape)}"
            raise CutError(
                f"the cut was made for another model: {name} {found}; analyse this model again",
                node=name,
            )
        cuts[node.value_name] = axes
    renumbers = {
        graph.nodes[name].value_name: renumbering
        for name, renumbering in result.renumbers.items()
        if name in graph.nodes
    }
    is_open = any(open_axes_of(model).values())
    return OpenModel(
        model, graph, cuts, renumbers, graph.values, outside=dict(outside or {}), is_open=is_open
    )


def open_axes_of(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the axes whose sizes a file leaves open, by input."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return {
        info.name: [
            axis
            for axis, dim in enumerate(info.type.tensor_type.shape.dim)
            if not dim.HasField("dim_value") or dim.dim_value <= 0
        ]
        for info in model.graph.input
        if info.name not in stored
    }


def computed_after(opened: OpenModel) -> Values | None:
    """Return the constants as they are once the tensors have their new shapes."""
    values = opened.graph.values
    if values is None:
        return None
    shapes = {
        node.value_name: opened.shape_after(node)
        for node in opened.graph.nodes.values()
        if node.value_name in opened.cuts
    }

    def stored(name: str) -> Any:
        if name in opened.replaced:
            return opened.replaced[name]
        value = values.stored(name)
        return None if value is None else opened.after(name, value)

    return values.edited(shapes, stored)


def separate_equals(opened: OpenModel) -> None:
    """Give parameters that were stored once, because their values were equal, their own tensors.

    Where a cut touches one of them the others must stay as they are.
    """
    import onnx

    stored = opened.stored()
    terminals = {node.value_name for node in opened.graph.nodes.values() if node.is_terminal()}
    source: dict[str, str] = {}
    identities = [node for node in flatten(opened.model.graph) if node.op_type == "Identity"]
    for node in identities:
        source[node.output[0]] = source.get(node.input[0], node.input[0])
    for node in identities:
        name, origin = node.output[0], source[node.output[0]]
        if name in terminals and origin in stored and {name, origin} & opened.cuts.keys():
            copy = onnx.TensorProto()
            copy.CopyFrom(stored[origin])
            copy.name = name
            if origin in opened.outside:
                opened.outside[name] = opened.outside[origin]
            opened.model.graph.initializer.append(copy)
            node.output[0] = f"{name}#unused"


def set_shapes(model: onnx.ModelProto, opened: OpenModel) -> None:
    """Write the shapes after the cut into the model's declared inputs and outputs."""
    nodes = {node.value_name: node for node in opened.graph.nodes.values()}
    infos = [(g, i) for g in all_graphs(model.graph) for i in (*g.input, *g.output)]
    for graph, info in infos:
        node = nodes.get(info.name)
        if node is None:
            continue
        tensor = info.type.tensor_type
        if graph is model.graph and node.is_shaped and not tensor.HasField("shape"):
            # The checker asks for what many files leave out.
            tensor.elem_type = tensor.elem_type or element_type(node.dtype)
            tensor.shape.SetInParent()
            for size in opened.shape_after(node):
                tensor.shape.dim.add(**({"dim_value": size} if size > 0 else {}))
        if info.name in opened.cuts:
            for dim, size in zip(tensor.shape.dim, opened.shape_after(node), strict=False):
                if dim.HasField("dim_value") and dim.dim_value > 0:
                    dim.dim_value = size


def cut_array(value: Array, axes: AxisCuts) -> Array:
    """Return ``value`` without the listed indices."""
    for dim, indices in enumerate(axes):
        if indices is not None and len(indices):
            value = np.delete(value, indices, axis=dim)
    return np.asarray(value, order="C")


def stored_array(tensor: onnx.TensorProto) -> Array:
    """Return a stored tensor's numbers; raises ``InvalidModelError`` where it does not hold them."""
    import onnx

    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidModelError(
            f"the stored tensor {tensor.name!r} does not hold the numbers of its shape "
            f"{list(tensor.dims)}: {error}. The file is damaged, or was cut short"
        ) from error


def zero_array(value: Array, axes: AxisCuts) -> Array:
    """Return a copy of ``value`` with the listed slices set to zero."""
    value = value.copy()
    for dim, indices in enumerate(axes):
        if indices is not None and len(indices):
            value[(slice(None),) * dim + (indices,)] = 0
    return value


def constant_values(opened: OpenModel, names: list[str]) -> dict[str, Array]:
    """Return values that follow from constants and shapes alone, by running just those operators."""
    import onnx

    from torchpruner_core.running import run

    known = {name: opened.graph.values.known(name) for name in names} if opened.graph.values else {}
    found = {name: value for name, value in known.items() if value is not None}
    missing = [name for name in names if name not in found]
    if not missing:
        return found
    producers = {o: node for node in flatten(opened.model.graph) for o in node.output}
    stored = opened.stored()
    needed: dict[int, Any] = {}
    weights: dict[str, Any] = {}
    pending = list(missing)
    while pending:
        name = pending.pop()
        node = producers.get(name)
        if name in stored:
            weights[name] = opened.read(stored[name])
        elif node is not None and node.op_type in ("Shape", "Size"):
            value = opened.graph.values.known(name) if opened.graph.values else None
            if value is None:
                raise GraphError(
                    f"the shape that {name!r} reads is not known before the model runs"
                )
            weights[name] = onnx.numpy_helper.from_array(value, name)
        elif node is not None and id(node) not in needed:
            needed[id(node)] = node
            pending += [i for i in node.input if i]
    order = list({id(node): node for node in producers.values() if id(node) in needed}.values())
    outputs = [onnx.ValueInfoProto(name=name) for name in missing]
    graph = onnx.helper.make_graph(order, "constants", [], outputs, list(weights.values()))
    small = onnx.helper.make_model(graph, opset_imports=list(opened.model.opset_import))
    small.ir_version = opened.model.ir_version
    return found | run(small.SerializeToString(), {})
