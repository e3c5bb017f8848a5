"""The tensors and modules of a graph; operators are in :mod:`torchpruner_core.operators`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.records import TERMINAL_KINDS, NodeKind
from torchpruner_core.cut_result import CutRequest, CutResult
from torchpruner_core.errors import UnknownNodeError

if TYPE_CHECKING:
    from torchpruner_core.analysis.closure import Granularity
    from torchpruner_core.onnx_graph import ONNXGraph
    from torchpruner_core.operators.base import OperatorNode

UNKNOWN = -1
"""The size of an axis that only the data decides."""


class DataNode:
    """One tensor: a graph input, a parameter, a buffer, a constant or an operator's output.

    ``in_operator`` is the operator that computes it (``None`` for a terminal node and a graph
    input), ``out_operators`` those that read it. ``data`` is a numpy array once it was filled.
    """

    def __init__(
        self, name: str, value_name: str, shape: Sequence[int], dtype: str, kind: NodeKind
    ) -> None:
        self.name = name
        self.value_name = value_name
        self.shape = tuple(map(int, shape))
        self.dtype = dtype
        self.kind: NodeKind = kind
        self.module = ""
        self.alias_of: str | None = None
        self.data: NDArray[Any] | None = None
        self.graph: ONNXGraph | None = None
        self.in_operator: OperatorNode | None = None
        self.out_operators: list[OperatorNode] = []
        self.first_axis = -1
        self.is_shaped = True
        """Whether the rank is known; a sequence has none, and ``shape`` is ``()``."""
        self._is_output = False

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


class Module:
    """One ``nn.Module`` of the model, or one of its parameters or buffers, as the graph sees it.

    ``nn_object`` is the PyTorch object (``None`` for a file), ``sub_modules`` its children by
    attribute name, ``terminal_node`` the tensor of a parameter or buffer. ``operators`` are the
    operators that ran inside and depend on the input, ``in_data`` and ``out_data`` the tensors
    that enter and leave.
    """

    def __init__(self, name: str, graph: ONNXGraph, nn_object: Any = None) -> None:
        self.name = name
        self.graph = graph
        self.nn_object = nn_object
        self.sub_modules: dict[str, Module] = {}
        self.terminal_node: DataNode | None = None
        self.operators: list[OperatorNode] = []
        self.in_data: list[DataNode] = []
        self.out_data: list[DataNode] = []

    def cut_analysis(
        self,
        attribute_name: str,
        index: Sequence[int],
        dim: int,
        *,
        granularity: Granularity = "auto",
        protect_io: bool = False,
    ) -> CutResult:
        """Return the smallest consistent cut that removes ``index`` along ``dim`` of an attribute.

        ``attribute_name`` is dotted from this module: ``'weight'``, ``'bn.weight'``; for the module
        of a parameter itself it is ``''``. Raises ``CutError`` and its subclasses.
        """
        name = f"{self.name}.{attribute_name}" if attribute_name else self.name
        return self.graph.solved.cut_analysis(
            name, index, dim, granularity=granularity, protect_io=protect_io
        )

    def cut_request(self, attribute_name: str, index: Sequence[int], dim: int) -> CutRequest:
        """Return the checked request of :meth:`cut_analysis`, for a joint cut of several."""
        name = f"{self.name}.{attribute_name}" if attribute_name else self.name
        return self.graph.solved.request(name, index, dim)

    def __repr__(self) -> str:
        kind = type(self.nn_object).__name__ if self.nn_object is not None else "Module"
        return f"{kind}({self.name!r})"


def fill_boundaries(module: Module) -> None:
    """Set ``in_data`` and ``out_data`` from the module's operators."""
    inside = set(map(id, module.operators))
    for operator in module.operators:
        for node in operator.in_data:
            outside = node is not None and (
                node.in_operator is None or id(node.in_operator) not in inside
            )
            if (
                node is not None
                and outside
                and not node.is_terminal()
                and node not in module.in_data
            ):
                module.in_data.append(node)
        for node in operator.out_data:
            leaves = node.is_output() or any(id(user) not in inside for user in node.out_operators)
            if leaves and node not in module.out_data:
                module.out_data.append(node)


def np_dtype(name: str) -> np.dtype[Any]:
    """Return numpy's dtype of a node's dtype name; ``bfloat16`` comes from ``ml_dtypes``."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype
