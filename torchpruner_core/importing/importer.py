"""ONNX bytes to nodes and operators.

Steps: read, check, inline functions, set the input shapes, infer all shapes, then make one
:class:`DataNode` a tensor and one operator a node, in the file's (topological) order. Three
idioms of PyTorch's exporters are read as what they mean: a stored tensor behind an ``Identity`` is
a parameter of its own, a ``SplitToSequence`` with constant ``SequenceAt`` a ``Split``, and a
``Constant`` a stored tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.records import NodeKind
from torchpruner_core.errors import InputSpecError, InvalidModelError
from torchpruner_core.graph import naming
from torchpruner_core.graph.dtypes import np_dtype
from torchpruner_core.graph.nodes import DataNode, OperatorRecord
from torchpruner_core.graph.origin import Origin
from torchpruner_core.graph.values import Values, attributes, tensor_value
from torchpruner_core.graph.written import WrittenModel
from torchpruner_core.importing.bodies import (
    bodies_of,
    captured,
    flatten,
    is_flattened,
    may_hold_graphs,
)
from torchpruner_core.importing.folding import Decision, fold_conditions
from torchpruner_core.importing.input_shapes import InputSpecs, set_input_shapes
from torchpruner_core.importing.notes import notes_of
from torchpruner_core.importing.parsing import parse
from torchpruner_core.importing.shapes import Known, complete_shapes, infer_shapes
from torchpruner_core.operators import operator_register
from torchpruner_core.operators.alone import stated_inputs
from torchpruner_core.operators.base import OperatorNode

if TYPE_CHECKING:
    import onnx

    from torchpruner_core.cut_result import TensorSpec

SHAPE_OPERATORS = ("Shape", "Size")

QUANTISED = frozenset(
    {"int8", "uint8", "int4", "uint4", "int2", "uint2", "int16", "uint16", "int32"}
    | {"float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float4_e2m1fn"}
)
"""What quantised weights and biases are stored in."""


@dataclass(slots=True)
class ImportedGraph:
    """Everything a file says about its graph; ``model`` is the checked, weightless model."""

    model: onnx.ModelProto | WrittenModel
    nodes: dict[str, DataNode] = field(default_factory=dict)
    operators: dict[str, OperatorNode] = field(default_factory=dict)
    inputs: list[DataNode] = field(default_factory=list)
    outputs: list[DataNode] = field(default_factory=list)
    origin: Origin = field(default_factory=Origin)
    module_paths: set[str] = field(default_factory=set)
    values: Values | None = None
    decided: tuple[Decision, ...] = ()
    """Which branches took the place of their ``If``."""
    fixed: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Inputs whose value the caller gave."""
    transposed: tuple[str, ...] = ()
    """Weights of linears that are stored as (in, out), by node name."""
    notes: list[str] = field(default_factory=list)
    """What the file has lost that a person may miss, a sentence each."""


def read_graph(weightless: bytes, inputs: InputSpecs = None) -> ImportedGraph:
    """Return the graph of a weightless ONNX file.

    Raises ``InvalidModelError``, ``InputSpecError`` or ``UnsupportedModelError``.
    """
    model = parse(weightless)
    given = set_input_shapes(model, inputs)
    fixed = {name: _fixed(name, spec) for name, spec in given.items() if spec.value is not None}
    decided = fold_conditions(model, fixed)
    graph = _Importer(model, fixed).run()
    graph.decided = decided
    return graph


def graph_of(model: WrittenModel, known: Known) -> ImportedGraph:
    """Return the graph of a weightless model that this library made itself, with ``known`` shapes."""
    return _Importer(model, {}, known).run()


def _fixed(name: str, spec: TensorSpec) -> NDArray[Any]:
    try:
        return np.array(spec.value, dtype=np_dtype(spec.dtype or "int64")).reshape(spec.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputSpecError(
            f"the value given for input {name!r} does not fit its shape {list(spec.shape)} and "
            f"dtype {spec.dtype}: {error}",
            input=name,
        ) from error


class _Importer:
    def __init__(
        self,
        model: onnx.ModelProto | WrittenModel,
        fixed: Mapping[str, NDArray[Any]],
        known: Known | None = None,
    ) -> None:
        self.model = model
        self.known = known
        self.program = list(flatten(model.graph))
        if isinstance(model, WrittenModel):
            self.origin = model.origin
        else:
            metadata = {entry.key: entry.value for entry in model.metadata_props}
            self.origin = Origin.from_metadata(metadata)
        self.parameters = frozenset(self.origin.parameters)
        self.buffers = frozenset(self.origin.buffers)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producers = {o: n for n in self.program for o in n.output if o}
        self.same_storage = self._identities()
        self.values = Values(self._stored, self.producers, opsets=list(model.opset_import))
        self.by_value: dict[str, DataNode] = {}
        self.graph = ImportedGraph(model, origin=self.origin, values=self.values, fixed=dict(fixed))
        self.body_inputs = {
            info.name
            for node in self.program
            if is_flattened(node)
            for body in bodies_of(node)
            for info in body.input
        }
        self.unnamed: list[tuple[str, Any, int]] = []
        """Stored tensors that were named after what reads them, with that reader and its input."""
        self.inputs_of_type: dict[tuple[str, str], int] = {}
        self.node_names = naming.Names()
        self.operator_names = naming.Names()
        self.known_paths = naming.prefixes(
            [*self.origin.module_types, *(n.rpartition(".")[0] for n in self._parameter_names())]
        )

    def _parameter_names(self) -> Iterable[str]:
        stated = self.parameters | self.buffers
        yield from (
            name for name in self.initializers if name in stated or not naming.is_generated(name)
        )
        yield from self.same_storage

    def _identities(self) -> dict[str, str]:
        """Return parameters that the exporter stored once because their values were equal."""
        stated = self.parameters | self.buffers
        found: dict[str, str] = {}
        for node in self.program:
            if node.op_type == "Identity" and (
                node.input[0] in self.initializers or node.input[0] in found
            ):
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
        if name in self.graph.fixed:
            return self.graph.fixed[name]
        tensor = self.initializers.get(self.same_storage.get(name, name))
        return None if tensor is None else tensor_value(tensor)

    def run(self) -> ImportedGraph:
        if self.known is None:
            assert not isinstance(self.model, WrittenModel)
            self.shapes = infer_shapes(self.model, self.values)
        else:
            self.shapes = complete_shapes(self.model, self.values, self.known)
        self.sequences = self._sequences()
        for info in self.model.graph.input:
            if info.name not in self.initializers:
                node = self._node(info.name, self.node_names.unique(info.name), "input")
                self.graph.inputs.append(node)
        self.output_names = {info.name for info in self.model.graph.output}
        for name in self.output_names - set(self.by_value):
            self.node_names.unique(name)
        self.scopes = naming.Scopes(self.program, self.known_paths, self._owner)
        for position, node in enumerate(self.program):
            self._operator(position, node)
        for info in self.model.graph.output:
            found = self.by_value.get(info.name) or self._terminal(info.name, None, 0)
            if found is None:
                raise InvalidModelError(f"no operator computes the output {info.name!r}")
            found._is_output = True
            self.graph.outputs.append(found)
        self._add_aliases()
        self._note_what_is_lost()
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
        if self.origin.parameters or self.origin.buffers or user is None:
            dtype = self.shapes[value][1]
            is_own = self.origin.parameters or self.origin.buffers
            real = dtype.startswith(("float", "bfloat"))
            return value, "parameter" if real and not is_own else "constant"
        return self._identify_foreign(value, user, position)

    def _identify_foreign(self, value: str, user: Any, position: int) -> tuple[str, NodeKind]:
        """Tell a parameter by what reads it, in a file whose exporter did not say which are."""
        reader, place, quantised = self._reader(value, user, position)
        role = naming.ROLES.get(reader.op_type, {}).get(place)
        shape, dtype = self.shapes[value]
        count = prod(shape or ())
        generated = naming.is_generated(value)
        name = naming.dotted(value)
        is_scale = position in naming.SCALES.get(user.op_type, ())
        if generated:
            module = self.scopes.path(reader)
            if module and role is not None and not is_scale and shape:
                name = f"{module}.{role}"
                self.unnamed.append((value, reader, place))
            elif module:
                name = f"{module}.{name}"
        if place in naming.SETTINGS.get(reader.op_type, ()) or (not shape and generated):
            return name, "constant"
        if is_scale:
            return name, "buffer" if count > 1 else "constant"
        if not dtype.startswith(("float", "bfloat")):
            holds_weight = quantised or (role is not None and reader.op_type in naming.SCALES)
            return name, "parameter" if holds_weight and dtype in QUANTISED else "constant"
        if (reader.op_type, place) in naming.BUFFER_ROLES:
            return name, "buffer"
        if generated and count == 1 and (role is None or reader.op_type in ("Add", "Mul")):
            return name, "constant"
        return name, "parameter"

    def _note_what_is_lost(self) -> None:
        transposed, convolutions = [], 0
        for value, reader, place in self.unnamed:
            node = self.by_value[value]
            convolutions += reader.op_type == "Conv" and place == 1
            if node.kind == "parameter" and _stands_transposed(reader, place, node.rank):
                transposed.append(node.name)
        self.graph.transposed = tuple(transposed)
        producer = str(self.model.producer_name)
        count = sum(self.by_value[value].kind == "parameter" for value, _, _ in self.unnamed)
        self.graph.notes += notes_of(producer, self.program, count, transposed, convolutions)

    def _reader(self, value: str, user: Any, position: int) -> tuple[Any, int, bool]:
        """Return what reads a stored tensor as data, at which input, and whether it is dequantised."""
        quantised = False
        while user.op_type in naming.PASSED_ON and position == 0:
            quantised |= user.op_type == "DequantizeLinear"
            found = self.readers.get(user.output[0])
            if found is None:
                break
            user, position = found
        return user, position, quantised

    @cached_property
    def readers(self) -> dict[str, tuple[Any, int]]:
        """The first operator that reads each value, and at which input."""
        found: dict[str, tuple[Any, int]] = {}
        for node in self.program:
            for position, name in enumerate(node.input):
                found.setdefault(name, (node, position))
        return found

    def _sequences(self) -> dict[str, dict[int, str]]:
        """Return, for each sequence that is only read at constant positions, position -> value."""
        made = {n.output[0] for n in self.program if n.op_type == "SplitToSequence"}
        found: dict[str, dict[int, str]] = {name: {} for name in made}
        for node in self.program:
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
        in_data += [self._read(value, node, len(in_data)) for value in self._inner(node)]
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
            not is_flattened(node)
            and not node.op_type.startswith(("Random", "Bernoulli", "Multinomial"))
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

    def _inner(self, node: Any) -> list[str]:
        """Return the values inside of an operator's bodies that it passes on, or reads from outside."""
        if not may_hold_graphs(node):
            return []
        if not is_flattened(node):
            return captured(node)
        ports = ("input", "output")
        return [i.name for body in bodies_of(node) for port in ports for i in getattr(body, port)]

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
        if found is None and value in self.body_inputs:
            found = self._node(value, self.node_names.number(), "intermediate")
            found.module = naming.self_name(self.scopes.path(user))
        if found is None:
            raise InvalidModelError(
                f"the operator {user.name or user.op_type!r} reads {value!r}, which nothing before "
                "it computes: it is missing from the file, or the operators cannot be put in order, "
                "since they read each other (a cycle)"
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


def _stands_transposed(reader: Any, place: int, rank: int) -> bool:
    """Return whether a linear's weight is read as (in, out), which PyTorch keeps as (out, in)."""
    if rank != 2 or place != 1 or reader.op_type not in ("MatMul", "Gemm", "MatMulInteger"):
        return False
    return not any(a.name == "transB" and a.i for a in reader.attribute)
