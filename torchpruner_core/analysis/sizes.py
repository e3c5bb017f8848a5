"""Which modules' code may compute with the size of a tensor that a cut shortens.

``b, c, h, w = x.shape`` and later ``y.reshape(b, c, h, w)``, or ``y / c``, leave no trace in a graph: a
size is a constant in one exporter and a computation in the other, and nothing says whose it was. What
the graph tells is where that can happen: in a module that handles the tensor and also states shapes,
or computes with a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile
from math import prod

from torchpruner_core.analysis.records import NodeInfo, OperatorInfo

STATES_SHAPES = frozenset(
    ("Reshape", "Expand", "Split", "Slice", "Tile", "ConstantOfShape", "Range", "Resize")
)
PRODUCTS = frozenset({"MatMul", "Einsum", "Attention"})
"""Of two computed tensors they are attention, which is scaled by a size."""

ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Clip", "Min", "Max", "Mod", "Where"})
"""With a number that the program holds: a size may stand behind it (``x.sum(1) / x.shape[1]``)."""


class SizeReaders:
    """The modules of a graph that may read sizes; immutable but for what it remembers."""

    def __init__(
        self, nodes: Mapping[str, NodeInfo], operators: Mapping[str, OperatorInfo]
    ) -> None:
        self._nodes = nodes
        self._operators = operators
        self._modules = frozenset(
            operator.module
            for operator in operators.values()
            if operator.type in STATES_SHAPES
            or (operator.type in PRODUCTS and self._computed(operator))
            or (operator.type in ARITHMETIC and self._has_number(operator))
            or any(self._is_written(name) for name in operator.inputs)
        )
        self._known: dict[str, frozenset[str]] = {}

    def of(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the modules that handle one of these tensors and may read its size, sorted."""
        if not self._modules:
            return ()
        found: set[str] = set()
        for name in names:
            if name not in self._known:
                self._known[name] = self._modules.intersection(self._handlers(self._nodes[name]))
            found |= self._known[name]
        return tuple(sorted(found))

    def _computed(self, operator: OperatorInfo) -> bool:
        kinds = [self._nodes[name].kind for name in operator.inputs]
        return kinds.count("intermediate") > 1

    def _has_number(self, operator: OperatorInfo) -> bool:
        """Tell whether one operand is a single number, and no parameter."""
        operands = [self._nodes[name] for name in operator.inputs]
        return any(
            prod(node.shape) == 1 and node.kind not in ("parameter", "input") for node in operands
        ) and any(prod(node.shape) != 1 for node in operands)

    def _is_written(self, name: str) -> bool:
        """Tell whether a tensor of several numbers is written in the program, in a size of its own."""
        node = self._nodes[name]
        return node.kind == "constant" and prod(node.shape) > 1 and "float" in node.dtype

    def _handlers(self, node: NodeInfo) -> set[str]:
        """Return the modules through whose code a tensor passes from where it is made to its readers."""
        root = ["self"]
        source = _path(self._operators[node.producer].module) if node.producer else root
        readers = [_path(self._operators[name].module) for name in node.consumers]
        if node.kind == "output" or not readers:
            readers.append(root)
        found: set[str] = set()
        for reader in readers:
            together = zip(source, reader, strict=False)
            shared = sum(1 for _ in takewhile(lambda names: names[0] == names[1], together))
            for path in (source, reader):
                found.update(".".join(path[:depth]) for depth in range(shared, len(path) + 1))
        return found


def _path(module: str) -> list[str]:
    return module.split(".")
