"""The tensors of a graph and the operators between them; what operators mean is in ``operators``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.closure import Granularity
from torchpruner_core.analysis.records import TERMINAL_KINDS, NodeKind
from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import CutResult
from torchpruner_core.errors import UnknownNodeError
from torchpruner_core.graph.values import Values


class HasSolved(Protocol):
    """What a node asks of the graph it belongs to."""

    @property
    def solved(self) -> SolvedGraph: ...


class DataNode:
    """One tensor: a graph input, a parameter, a buffer, a constant or an operator's output.

    ``in_operator`` is the operator that computes it (``None`` for a terminal node and a graph
    input), ``out_operators`` those that read it.
    """

    def __init__(
        self, name: str, value_name: str, shape: Sequence[int], dtype: str, kind: NodeKind
    ) -> None:
        self.name = name
        self.value_name = value_name
        self.shape = shape if type(shape) is tuple else tuple(map(int, shape))
        self.dtype = dtype
        self.kind: NodeKind = kind
        self.module = ""
        self.alias_of: str | None = None
        self._data: NDArray[Any] | None = None
        self.stored: Callable[[DataNode], NDArray[Any] | None] | None = None
        """Reads a stored tensor's contents, the first time somebody asks for :attr:`data`."""
        self.graph: HasSolved | None = None
        self.in_operator: OperatorRecord | None = None
        self.out_operators: list[OperatorRecord] = []
        self.first_axis = -1
        self.is_shaped = True
        """Whether the rank is known; a sequence has none, and ``shape`` is ``()``."""
        self._is_output = False

    @property
    def data(self) -> NDArray[Any] | None:
        """The contents: of a stored tensor always, of others once the graph was run, else ``None``."""
        if self._data is None and self.stored is not None:
            self._data = self.stored(self)
        return self._data

    @data.setter
    def data(self, value: NDArray[Any] | None) -> None:
        self._data = value

    def axis(self, dim: int) -> int:
        """Return the number of one of this tensor's axes among all axes of the graph."""
        return self.first_axis + dim % len(self.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def cut_analysis(
        self,
        index: Sequence[int],
        dim: int,
        *,
        granularity: Granularity = "auto",
        protect_io: bool = False,
    ) -> CutResult:
        """Return the smallest consistent cut that removes ``index`` along ``dim`` of this tensor."""
        if self.graph is None:
            raise UnknownNodeError(f"{self.name} belongs to no graph; build a graph first")
        return self.graph.solved.cut_analysis(
            self.name, index, dim, granularity=granularity, protect_io=protect_io
        )

    def size(self, dim: int | None = None) -> Any:
        """Return the shape as a tuple, or the size of one axis."""
        return self.shape if dim is None else self.shape[dim]

    def type(self) -> str:
        """Return the name of the data type as torch prints it: ``'Float'``, ``'Long'``, ..."""
        return _TYPE_NAMES.get(self.dtype, self.dtype)

    def is_terminal(self) -> bool:
        """Return whether no operator produces this tensor: a parameter, buffer or constant."""
        return self.kind in TERMINAL_KINDS

    def is_input(self) -> bool:
        """Return whether this is an input of the graph."""
        return self.kind == "input"

    def is_output(self) -> bool:
        """Return whether this is an output of the graph."""
        return self._is_output

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type()}({', '.join(map(str, self.shape))})"


_TYPE_NAMES = {
    "float32": "Float",
    "float64": "Double",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "bool": "Bool",
}


@dataclass(eq=False, repr=False)
class OperatorRecord:
    """One operator as a file states it: its attributes, what it reads and what it computes.

    ``name`` is ``'<module>.<Type>'``; ``params`` maps attribute names to Python values; ``in_data``
    holds ``None`` where an optional input is left out, up to the last that the operator's schema has.
    """

    name: str
    type: str
    module: str
    params: dict[str, Any]
    in_data: list[DataNode | None]
    out_data: list[DataNode]
    position: int
    values: Values
    proto: Any

    protocol: ClassVar[str] = "onnx"
    protocal: ClassVar[str] = "onnx"
    """The manual's spelling of :attr:`protocol`."""
    device = "CPU"
    is_constant = False
    """Whether what it computes follows from constants and shapes alone, whatever the input."""

    def rank(self, node: DataNode) -> tuple[str, int]:
        """Return ``('in', position)`` or ``('out', position)`` of ``node``; raises ``ValueError``."""
        for direction, nodes in (("in", self.in_data), ("out", self.out_data)):
            for position, candidate in enumerate(nodes):
                if candidate is node:
                    return direction, position
        raise ValueError(f"{node.name} is neither an input nor an output of {self.name}")

    def input(self, position: int) -> DataNode | None:
        """Return an input, or ``None`` where it is left out."""
        return self.in_data[position] if position < len(self.in_data) else None

    def output(self, position: int) -> DataNode | None:
        """Return an output, or ``None`` where it is left out."""
        names = list(self.proto.output)
        wanted = names[position] if position < len(names) else ""
        return next((node for node in self.out_data if node.value_name == wanted), None)

    def value(self, position: int) -> NDArray[Any] | None:
        """Return the contents of an input known without running the model, else ``None``."""
        node = self.input(position)
        return None if node is None else self.values.known(node.value_name)

    def integers(self, position: int, attribute: str | None = None) -> list[int] | None:
        """Return a list of integers given as an input, or as an attribute in older operator sets."""
        value = self.value(position)
        if value is not None:
            return [int(i) for i in value.ravel().tolist()]
        if attribute is not None and attribute in self.params:
            found = self.params[attribute]
            return [int(i) for i in found] if isinstance(found, Sequence) else [int(found)]
        return None

    def adapts(self, position: int) -> NDArray[np.bool_] | None:
        """Return which entries of a known input depend on the shapes of other tensors."""
        node = self.input(position)
        return None if node is None else self.values.adapts(node.value_name)

    def follows(self, position: int) -> NDArray[np.bool_] | None:
        """Return which entries of a known input are sizes that change with a cut by themselves."""
        node = self.input(position)
        return None if node is None else self.values.follows(node.value_name)

    def stored_in(self, position: int) -> tuple[str, ...]:
        """Return the values whose entries an input holds as they are stored; none where it does not."""
        node = self.input(position)
        return (node and self.values.stored_in(node.value_name)) or ()

    @property
    def opset(self) -> int:
        """The version of the operator set that the model asks for in this operator's domain."""
        domain = self.proto.domain
        same = ("", "ai.onnx") if domain in ("", "ai.onnx") else (domain,)
        found = [entry.version for entry in self.values.opsets if entry.domain in same]
        return int(found[0]) if found else 1

    def __repr__(self) -> str:
        ins = ", ".join("" if node is None else f"%{node.name}" for node in self.in_data)
        ins = ins.rstrip(", ")
        outs = ", ".join(f"%{node.name}" for node in self.out_data)
        return f"{outs} = {self.type}({ins})  # {self.name}"
