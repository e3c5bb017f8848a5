"""Which modules' code may compute with the size of a tensor that a cut shortens.

``b, c, h, w = x.shape`` and later ``y.reshape(b, c, h, w)``, or ``y / c``, leave no trace in a graph: a
size is a constant in one exporter and a computation in the other, and nothing says whose it was. What
the graph tells is where that can happen: in a module that handles the tensor and also states shapes,
or computes with a number, be it an operand or an attribute (the slope of a ``LeakyRelu``, a kernel).
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

NUMBERLESS = frozenset(
    (
        "Abs", "Add", "And", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "Cast", "CastLike", "Ceil", "Clip",
        "Concat", "Constant", "Cos", "Div", "Equal", "Erf", "Exp", "Flatten", "Floor", "Gelu",
        "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "HardSwish", "Identity", "If",
        "IsInf", "IsNaN", "Less", "LessOrEqual", "Log", "LogSoftmax", "Loop", "MatMul", "Max", "Mean", "Min",
        "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "ReduceL1", "ReduceL2",
        "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Round",
        "Scan", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Softmax", "Softsign", "Sqrt", "Squeeze", "Sub",
        "Sum", "Swish", "Tanh", "Transpose", "Unsqueeze", "Where", "Xor",
    )
)  # fmt: skip
"""Operators without an attribute that a size could stand behind; their operands are looked at."""


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
            or (operator.type not in NUMBERLESS and not self._is_layer(operator))
            or any(self._is_written(name, operator.type) for name in operator.inputs)
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

    def _is_layer(self, operator: OperatorInfo) -> bool:
        """Tell whether an operator applies a weight that its own module holds."""
        own = f"{operator.module}."
        return any(
            self._nodes[name].kind in ("parameter", "buffer")
            and name.startswith(own)
            and "." not in name.removeprefix(own)
            for name in operator.inputs
        )

    def _is_written(self, name: str, operator: str) -> bool:
        """Tell whether a tensor of several numbers is written in the program, in a size of its own.

        Whole numbers may also say a shape or a place, but not where they are computed with.
        """
        node = self._nodes[name]
        computed_with = "float" in node.dtype or operator in NUMBERLESS
        return node.kind == "constant" and prod(node.shape) > 1 and computed_with

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
