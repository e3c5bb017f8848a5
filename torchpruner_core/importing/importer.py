"""ONNX bytes to nodes and operators.

Steps: read, check, inline functions, set the input shapes, infer all shapes, then make one
:class:`DataNode` a tensor and one operator a node, in the file's (topological) order. Three
idioms of PyTorch's exporters are read as what they mean: a stored tensor behind an ``Identity`` is
a parameter of its own, a ``SplitToSequence`` with constant ``SequenceAt`` a ``Split``, and a
``Constant`` a stored tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import TYPE_CHECKING, Any

from torchpruner_core.analysis.records import NodeKind
from torchpruner_core.cut_result import TensorSpec
from torchpruner_core.errors import InputSpecError, InvalidModelError, UnsupportedModelError
from torchpruner_core.graph import naming
from torchpruner_core.graph.dtypes import dtype_name
from torchpruner_core.graph.nodes import DataNode, OperatorRecord
from torchpruner_core.graph.origin import Origin
from torchpruner_core.graph.values import Values, attributes, tensor_value
from torchpruner_core.importing.shapes import infer_shapes
from torchpruner_core.operators import operator_register
from torchpruner_core.operators.alone import stated_inputs
from torchpruner_core.operators.base import OperatorNode

if TYPE_CHECKING:
    import onnx

InputSpecs = Mapping[str, Any] | Sequence[Any] | None
"""By name or in order: a ``TensorSpec``, a plain shape such as ``[1, 3, 224, 224]``, or an array."""

MAY_HOLD_GRAPHS = (0, 5, 10)
"""``AttributeProto.type``: not stated (files of the first format), ``GRAPH``, ``GRAPHS``."""

SHAPE_OPERATORS = ("Shape", "Size")


@dataclass(slots=True)
class ImportedGraph:
    """Everything a file says about its graph; ``model`` is the checked, weightless model."""

    model: onnx.ModelProto
    nodes: dict[str, DataNode] = field(default_factory=dict)
    operators: dict[str, OperatorNode] = field(default_factory=dict)
    inputs: list[DataNode] = field(default_factory=list)
    outputs: list[DataNode] = field(default_factory=list)
    origin: Origin = field(default_factory=Origin)
    module_paths: set[str] = field(default_factory=set)
    values: Values | None = None


def read_graph(weightless: bytes, inputs: InputSpecs = None) -> ImportedGraph:
    """Return the graph of a weightless ONNX file.

    Raises ``InvalidModelError``, ``InputSpecError`` or ``UnsupportedModelError``.
    """
    model = parse(weightless)
    _set_input_shapes(model, inputs)
    return _Importer(model).run()


def parse(data: bytes) -> onnx.ModelProto:
    """Return a checked model with its functions inlined; raises ``InvalidModelError``."""
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise InvalidModelError(f"the file is not a valid ONNX model: {error}") from error
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise UnsupportedModelError(
                f"the tensor {tensor.name!r} is stored outside the file; save the model as one file "
                "(onnx.save without external data), or upload it without its weights"
            )
    if not model.graph.output:
        raise InvalidModelError("the ONNX model has no outputs")
    for node in model.graph.node:
        for text in (node.op_type, node.domain, node.name, *node.input, *node.output):
            if not isinstance(text, str):
                raise InvalidModelError(f"the file holds a name that is not UTF-8 text: {text!r}")
    if model.functions:
        import onnx.inliner

        try:
            model = onnx.inliner.inline_local_functions(model)
        except Exception as error:
            raise InvalidModelError(f"the model's functions cannot be inlined: {error}") from error
    del model.graph.value_info[:]
    return model


def _set_input_shapes(model: onnx.ModelProto, inputs: InputSpecs) -> None:
    import onnx

    stored = {tensor.name for tensor in model.graph.initializer}
    open_inputs = [info for info in model.graph.input if info.name not in stored]
    named = _by_name(open_inputs, inputs)
    for info in open_inputs:
        spec = named.get(info.name)
        tensor = info.type.tensor_type
        if spec is not None:
            declared = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
            if tensor.HasField("shape") and not _fits(declared, spec.shape):
                raise InputSpecError(
                    f"input {info.name!r} has the shape {_shown(declared)} in the file, and "
                    f"{list(spec.shape)} was given",
                    input=info.name,
                    expected=_shown(declared),
                    received=list(spec.shape),
                )
            if spec.dtype and tensor.elem_type and spec.dtype != dtype_name(tensor.elem_type):
                raise InputSpecError(
                    f"input {info.name!r} has the dtype {dtype_name(tensor.elem_type)} in the file, "
                    f"and {spec.dtype} was given",
                    input=info.name,
                    expected=dtype_name(tensor.elem_type),
                    received=spec.dtype,
                )
            shape = onnx.helper.make_tensor_type_proto(tensor.elem_type, list(spec.shape))
            info.type.CopyFrom(shape)
        elif info.type.HasField("tensor_type"):
            for dim in tensor.shape.dim:
                if not dim.HasField("dim_value") or dim.dim_value < 0:
                    declared = [
                        d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim
                    ]
                    raise InputSpecError(
                        f"input {info.name!r} has dynamic dimensions, {_shown(declared)}; give its "
                        "shape",
                        input=info.name,
                        expected=_shown(declared),
                    )


def _by_name(open_inputs: Sequence[Any], inputs: InputSpecs) -> dict[str, TensorSpec]:
    names = [info.name for info in open_inputs]
    if inputs is None:
        return {}
    if isinstance(inputs, Mapping):
        pairs = [(name, _spec(name, value)) for name, value in inputs.items()]
        return _known(pairs, names)
    if len(inputs) and all(isinstance(size, int) for size in inputs):
        inputs = (inputs,)  # one plain shape
    inputs = [_spec("", value) for value in inputs]
    if len(inputs) > len(names):
        raise InputSpecError(
            f"{len(inputs)} inputs were given, and the model takes {len(names)}: {', '.join(names)}",
            expected=names,
            received=len(inputs),
        )
    if any(spec.name for spec in inputs):
        return _known([(spec.name, spec) for spec in inputs], names)
    return dict(zip(names, inputs, strict=False))


def _spec(name: str, value: Any) -> TensorSpec:
    """Return a shape as a spec; a plain one leaves the dtype to the file (an empty name)."""
    if isinstance(value, TensorSpec):
        return value
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        sizes, dtype = value.shape, str(value.dtype).removeprefix("torch.")
    else:
        sizes, dtype = value, ""
    try:
        if isinstance(sizes, str | bytes | Mapping):
            raise TypeError
        return TensorSpec(name, tuple(index(size) for size in sizes), dtype)
    except TypeError:
        raise InputSpecError(
            f"the shape of an input is a list of integers such as [1, 3, 224, 224], not {value!r:.80}",
            input=name,
            received=repr(value)[:80],
        ) from None


def _known(pairs: Sequence[tuple[str, TensorSpec]], names: Sequence[str]) -> dict[str, TensorSpec]:
    unknown = [name for name, _ in pairs if name not in names]
    if unknown:
        raise InputSpecError(
            f"the model has no input called {unknown[0]!r}; its inputs are {', '.join(names)}",
            expected=names,
            received=unknown,
        )
    return dict(pairs)


def _fits(declared: Sequence[int | None], shape: Sequence[int]) -> bool:
    return len(declared) == len(shape) and all(
        d is None or d == 0 or d == n for d, n in zip(declared, shape, strict=True)
    )


def _shown(declared: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in declared) + "]"


class _Importer:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        self.origin = Origin.from_metadata(metadata)
        self.parameters = frozenset(self.origin.parameters)
        self.buffers = frozenset(self.origin.buffers)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producers = {o: n for n in model.graph.node for o in n.output if o}
        self.same_storage = self._identities()
        self.values = Values(self._stored, self.producers, opsets=list(model.opset_import))
        self.by_value: dict[str, DataNode] = {}
        self.graph = ImportedGraph(model, origin=self.origin, values=self.values)
        self.inputs_of_type: dict[tuple[str, str], int] = {}
        self.node_names = naming.Names()
        self.operator_names = naming.Names()
        self.known_paths = naming.prefixes(
            [*self.origin.module_types, *(n.rpartition(".")[0] for n in self._parameter_names())]
        )

    def _parameter_names(self) -> Iterable[str]:
        yield from (name for name in self.initializers if not naming.is_generated(name))
        yield from self.same_storage

    def _identities(self) -> dict[str, str]:
        """Return parameters that the exporter stored once because their values were equal."""
        stated = self.parameters | self.buffers
        found: dict[str, str] = {}
        for node in self.model.graph.node:
            if node.op_type == "Identity" and node.input[0] in {*self.initializers, *found}:
                name = node.output[0]
                if name in stated or (not stated and not node.name.startswith("/") and "." in name):
                    found[name] = found.get(node.input[0], node.input[0])
        return found

    def _owner(self, value: str) -> str | None:
        """Return the module that a stored tensor's name says it belongs to."""
        if value not in self.initializers and value not in self.same_storage:
            return None
        return None if naming.is_generated(value) else value.rpartition(".")[0]

    def _stored(self, name: str) -> Any:
        tensor = self.initializers.get(self.same_storage.get(name, name))
        return None if tensor is None else tensor_value(tensor)

    def run(self) -> ImportedGraph:
        self.shapes = infer_shapes(self.model, self.values)
        self.sequences = self._sequences()
        for info in self.model.graph.input:
            if info.name not in self.initializers:
                node = self._node(info.name, self.node_names.unique(info.name), "input")
                self.graph.inputs.append(node)
        self.output_names = {info.name for info in self.model.graph.output}
        for name in self.output_names - set(self.by_value):
            self.node_names.unique(name)
        self.scopes = naming.Scopes(self.model.graph.node, self.known_paths, self._owner)
        for position, node in enumerate(self.model.graph.node):
            self._operator(position, node)
        for info in self.model.graph.output:
            found = self.by_value.get(info.name) or self._terminal(info.name, None, 0)
            if found is None:
                raise InvalidModelError(f"no operator computes the output {info.name!r}")
            found._is_output = True
            self.graph.outputs.append(found)
        self._add_aliases()
        self.graph.module_paths = naming.prefixes(
            [*self.known_paths, *(op.module for op in self.graph.operators.values())]
        )
        return self.graph

    def _node(self, value: str, name: str, kind: NodeKind) -> DataNode:
        shape, dtype = self.shapes.get(value, (None, ""))
        node = DataNode(name, value, () if shape is None else shape, dtype, kind)
        node.is_shaped = shape is not None
        self.by_value[value] = node
        self.graph.nodes[name] = node
        return node

    def _terminal(self, value: str, user: Any, position: int) -> DataNode | None:
        """Return the node of a stored tensor, made where it is first read."""
        if value in self.by_value:
            return self.by_value[value]
        producer = self.producers.get(value)
        if value in self.initializers or value in self.same_storage:
            path, kind = self._identify(value, user, position)
        elif producer is not None and producer.op_type == "Constant":
            module = self.scopes.path(producer)
            path, kind = f"{module}.Constant" if module else "Constant", "constant"
            if value not in self.shapes or self.shapes[value][0] is None:
                known = self.values.known(value)
                self.shapes[value] = (() if known is None else known.shape, "")
        else:
            return None
        node = self._node(value, self.node_names.unique(naming.self_name(path)), kind)
        node.module = naming.self_name(path.rpartition(".")[0])
        return node

    def _identify(self, value: str, user: Any, position: int) -> tuple[str, NodeKind]:
        if value in self.buffers:
            return value, "buffer"
        if value in self.parameters:
            return value, "parameter"
        role = naming.ROLES.get(user.op_type, {}).get(position) if user is not None else None
        shape, dtype = self.shapes[value]
        if (
            self.origin.parameters
            or self.origin.buffers
            or not dtype.startswith(("float", "bfloat"))
        ):
            return value, "constant"
        kind: NodeKind = "parameter"
        if user is not None and (user.op_type, position) in naming.BUFFER_ROLES:
            kind = "buffer"
        if naming.is_generated(value):
            module = self.scopes.path(user) if user is not None else ""
            if role is None or not module or not shape:
                return value, "constant" if not role else kind
            return f"{module}.{role}", kind
        return value, kind

    def _sequences(self) -> dict[str, dict[int, str]]:
        """Return, for each sequence that is only read at constant positions, position -> value."""
        made = {n.output[0] for n in self.model.graph.node if n.op_type == "SplitToSequence"}
        found: dict[str, dict[int, str]] = {name: {} for name in made}
        for node in self.model.graph.node:
            for name in node.input:
                if name not in found:
                    continue
                at = self.values.known(node.input[1]) if node.op_type == "SequenceAt" else None
                if at is None:
                    del found[name]
                else:
                    found[name].setdefault(int(at), node.output[0])
        return found

    def _operator(self, position: int, node: Any) -> None:
        if node.op_type == "Constant" or (
            node.op_type == "Identity" and node.output[0] in self.same_storage
        ):
            return
        op_type, outputs = node.op_type, list(node.output)
        params = attributes(node)
        if op_type == "SequenceAt" and node.input[0] in self.sequences:
            at = int(self.values.known(node.input[1]))  # type: ignore[arg-type]
            first = self.sequences[node.input[0]][at]
            if first != node.output[0]:
                self.by_value[node.output[0]] = self.by_value[first]
            return
        if op_type == "SplitToSequence" and node.output[0] in self.sequences:
            op_type, outputs = "Split", self._split_outputs(node, params)
        in_data = [self._read(value, node, k) for k, value in enumerate(node.input)]
        in_data += [self._read(value, node, len(in_data)) for value in captured(node)]
        in_data += [None] * (self._stated_inputs(node) - len(in_data))
        module = self.scopes.path(node)
        module_name = naming.self_name(module)
        name = self.operator_names.unique(f"{module_name}.{op_type}")
        out_data = []
        for value in outputs:
            if not value:
                continue
            if value in self.by_value:
                raise InvalidModelError(f"the value {value!r} is computed twice")
            known = value in self.output_names
            out = self._node(
                value,
                value if known else self.node_names.number(),
                "output" if known else "intermediate",
            )
            out.module = module_name
            out_data.append(out)
        operator_class = operator_register.get(op_type, node.domain)
        record = OperatorRecord(
            name, op_type, module, params, in_data, out_data, position, self.values, node
        )
        operator = operator_class(record)
        for read in dict.fromkeys(in_data):
            if read is not None:
                read.out_operators.append(operator)
        operator.is_constant = node.op_type in SHAPE_OPERATORS or (
            not node.op_type.startswith(("Random", "Bernoulli", "Multinomial"))
            and all(map(self._is_constant, in_data[:1] if op_type == "CastLike" else in_data))
        )
        for out in out_data:
            out.in_operator = operator
        operator.position = len(self.graph.operators)
        self.graph.operators[name] = operator

    def _stated_inputs(self, node: Any) -> int:
        """Return how many inputs the operator's schema has, optional ones counted, if it has an end.

        A convolution's bias is ``in_data[2]``, ``None`` where there is none.
        """
        key = (node.op_type, node.domain)
        if key not in self.inputs_of_type:
            self.inputs_of_type[key] = stated_inputs(node, self.model.opset_import)
        return self.inputs_of_type[key]

    def _is_constant(self, node: DataNode | None) -> bool:
        if node is None or node.kind == "constant":
            return True
        return node.in_operator is not None and node.in_operator.is_constant

    def _split_outputs(self, node: Any, params: dict[str, Any]) -> list[str]:
        """Return the outputs of a sequence split as a ``Split``; parts nobody reads get names."""
        shape = self.shapes[node.input[0]][0] or ()
        axis = params.get("axis", 0)
        split = self.values.known(node.input[1]) if len(node.input) > 1 else None
        size = shape[axis]
        if split is None:
            sizes = [1] * size
        elif split.ndim == 0:
            step = int(split)
            sizes = [min(step, size - start) for start in range(0, size, step)]
        else:
            sizes = [int(n) for n in split.tolist()]
        read = self.sequences[node.output[0]]
        outputs = []
        for k, part in enumerate(sizes):
            value = read.get(k, read.get(k - len(sizes), f"{node.output[0]}#{k}"))
            outputs.append(value)
            if -1 in (self.shapes.get(value, (None,))[0] or (-1,)):
                parts = list(shape)
                parts[axis] = part
                self.shapes[value] = tuple(parts), self.shapes[node.input[0]][1]
        params["num_outputs"] = len(sizes)
        return outputs

    def _read(self, value: str, user: Any, position: int) -> DataNode | None:
        if not value:
            return None
        found = self.by_value.get(value) or self._terminal(value, user, position)
        if found is None:
            raise InvalidModelError(
                f"the operator {user.name or user.op_type!r} reads {value!r}, which nothing before "
                "it computes; the file is not in topological order, or holds a cycle"
            )
        return found

    def _add_aliases(self) -> None:
        """Give every name of a shared parameter a node."""
        for alias, target in self.origin.aliases.items():
            here, there = (
                self.graph.nodes.get(naming.self_name(alias)),
                self.graph.nodes.get(naming.self_name(target)),
            )
            if here is None and there is None:
                continue
            name, original = (alias, there) if there is not None else (target, here)
            assert original is not None
            node = self.graph.nodes.get(naming.self_name(name))
            if node is None:
                node = DataNode(
                    self.node_names.unique(naming.self_name(name)),
                    original.value_name,
                    original.shape,
                    original.dtype,
                    original.kind,
                )
                node.module = naming.self_name(name.rpartition(".")[0])
                self.graph.nodes[node.name] = node
            if node is not original:
                node.alias_of = original.name


def captured(node: Any) -> list[str]:
    """Return the outer values that an operator's subgraphs read."""
    found: dict[str, None] = {}
    for attribute in node.attribute:
        if attribute.type not in MAY_HOLD_GRAPHS:
            continue
        graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for graph in graphs:
            inner = {i.name for i in graph.input} | {t.name for t in graph.initializer}
            for child in graph.node:
                for name in (*child.input, *captured(child)):
                    if name and name not in inner:
                        found[name] = None
                inner.update(child.output)
            found.update({o.name: None for o in graph.output if o.name not in inner})
    return list(found)
