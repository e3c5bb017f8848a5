"""An ONNX model in plain Python objects, as capture writes it; protocol buffers where somebody asks.

They read as the protocol buffers do (``node.input``, ``tensor.dims``, ``model.graph.initializer``), so that
an importer takes either. Writing a small network as protocol buffers and reading it back takes
longer than what is done with it in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from torchpruner_core.graph.dtypes import np_dtype
from torchpruner_core.graph.origin import METADATA_KEY, Origin

if TYPE_CHECKING:
    import onnx

MODULE_KEY = "torchpruner.module"
"""The metadata entry that holds a node's module path alone, in models this library exported."""


class Entry(NamedTuple):
    """One entry of a node's metadata."""

    key: str
    value: str


class OperatorSet(NamedTuple):
    """An operator set that a model imports."""

    domain: str
    version: int


class WrittenTensor:
    """A stored tensor: ``raw`` are its contents as ONNX stores them, empty where they are left out."""

    __slots__ = ("data_type", "dims", "dtype", "name", "raw")

    def __init__(
        self, name: str, dims: tuple[int, ...], data_type: int, dtype: str, raw: bytes
    ) -> None:
        self.name = name
        self.dims = dims
        self.data_type = data_type
        self.dtype = dtype
        self.raw = raw

    def array(self) -> np.ndarray[Any, Any] | None:
        """Return the contents; ``None`` where they are left out."""
        dtype = np_dtype(self.dtype)
        count = int(np.prod(self.dims)) if self.dims else 1
        if len(self.raw) != count * dtype.itemsize:
            return None
        return np.frombuffer(self.raw, dtype).reshape(self.dims)

    def proto_in(self, tensors: Any) -> None:
        """Add the tensor to a repeated field of protocol buffers."""
        proto = tensors.add()
        proto.name = self.name
        proto.data_type = self.data_type
        proto.dims.extend(self.dims)
        if self.raw:
            proto.raw_data = self.raw


class WrittenValue(NamedTuple):
    """A graph's input or output."""

    name: str
    dims: tuple[int, ...]
    data_type: int

    def proto_in(self, infos: Any) -> None:
        """Add the value to a repeated field of protocol buffers."""
        info = infos.add()
        info.name = self.name
        info.type.tensor_type.elem_type = self.data_type
        shape = info.type.tensor_type.shape
        shape.SetInParent()
        for size in self.dims:
            shape.dim.add().dim_value = size


class WrittenNode:
    """An operator; ``settings`` are its attributes as Python values, a tensor as ``TensorProto``.

    ``module`` is the dotted path of the module that it ran in.
    """

    __slots__ = ("_proto", "domain", "input", "module", "op_type", "output", "settings")

    name = ""

    def __init__(
        self,
        op_type: str,
        inputs: list[str],
        outputs: list[str],
        settings: dict[str, Any],
        domain: str = "",
        module: str = "",
    ) -> None:
        self.op_type = op_type
        self.input = inputs
        self.output = outputs
        self.settings = settings
        self.domain = domain
        self.module = module
        self._proto: onnx.NodeProto | None = None

    @property
    def metadata_props(self) -> tuple[Entry, ...]:
        return (Entry(MODULE_KEY, self.module),)

    @property
    def attribute(self) -> Sequence[onnx.AttributeProto]:
        found: Sequence[onnx.AttributeProto] = self.proto.attribute
        return found

    @property
    def proto(self) -> onnx.NodeProto:
        """The node as a protocol buffer."""
        if self._proto is None:
            import onnx

            holder = onnx.GraphProto()
            self.proto_in(holder.node)
            self._proto = holder.node[0]
        return self._proto

    def proto_in(self, nodes: Any) -> None:
        """Add the node to a repeated field of protocol buffers."""
        proto = nodes.add()
        proto.op_type = self.op_type
        proto.input.extend(self.input)
        proto.output.extend(self.output)
        proto.domain = self.domain
        for key, value in self.settings.items():
            _write_attribute(proto.attribute.add(), key, value)
        entry = proto.metadata_props.add()
        entry.key = MODULE_KEY
        entry.value = self.module


class WrittenGraph:
    """The parts of a graph, in order."""

    __slots__ = ("initializer", "input", "node", "output")

    def __init__(self) -> None:
        self.node: list[WrittenNode] = []
        self.initializer: list[WrittenTensor] = []
        self.input: list[WrittenValue] = []
        self.output: list[WrittenValue] = []


class WrittenModel:
    """A model, not to be changed any more once :attr:`proto` was read."""

    producer_name = "torchpruner"

    def __init__(self, origin: Origin) -> None:
        self.graph = WrittenGraph()
        self.origin = origin
        self.opset_import: list[OperatorSet] = []
        self.ir_version = 0

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The model as a protocol buffer."""
        import onnx

        proto = onnx.ModelProto()
        proto.producer_name = self.producer_name
        proto.ir_version = self.ir_version
        graph = proto.graph
        graph.name = "main_graph"
        for info in self.graph.input:
            info.proto_in(graph.input)
        for tensor in self.graph.initializer:
            tensor.proto_in(graph.initializer)
        for node in self.graph.node:
            node.proto_in(graph.node)
        for info in self.graph.output:
            info.proto_in(graph.output)
        for domain, version in self.opset_import:
            proto.opset_import.add(domain=domain, version=version)
        proto.metadata_props.add(key=METADATA_KEY, value=self.origin.to_json())
        return proto


def as_node_proto(node: Any) -> Any:
    """Return a node as a protocol buffer, which it may be already."""
    return node.proto if isinstance(node, WrittenNode) else node


def _write_attribute(attribute: Any, key: str, value: Any) -> None:
    """Write an attribute; numbers of ``AttributeProto.type``: 1 float, 2 int, 3 text, 4 tensor."""
    attribute.name = key
    if isinstance(value, int):
        attribute.type, attribute.i = 2, value
    elif isinstance(value, float):
        attribute.type, attribute.f = 1, value
    elif isinstance(value, str):
        attribute.type, attribute.s = 3, value.encode()
    elif not isinstance(value, list):
        attribute.type = 4
        attribute.t.CopyFrom(value)
    elif all(isinstance(each, int) for each in value):
        attribute.type = 7
        attribute.ints.extend(value)
    elif all(isinstance(each, float) for each in value):
        attribute.type = 6
        attribute.floats.extend(value)
    else:
        attribute.type = 8
        attribute.strings.extend(each.encode() for each in value)
