"""Conditions that are known: the branch that runs takes the place of its ``If``.

A condition is known where it follows from constants, from shapes, or from a value that the caller
gave for an input (a sampling rate, a mode).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.graph.values import Values, tensor_value
from torchpruner_core.importing.bodies import flatten, inline_branch
from torchpruner_core.importing.shapes import infer_shapes

if TYPE_CHECKING:
    import onnx

Decision = tuple[str, bool]
"""The first output of an ``If``, and whether its ``then`` branch runs."""


def values_of(model: onnx.ModelProto, fixed: Mapping[str, NDArray[Any]]) -> Values:
    """Return what is known of the values of ``model``; ``fixed`` are inputs with a given value."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}

    def contents(name: str) -> Any:
        if name in fixed:
            return fixed[name]
        tensor = stored.get(name)
        return None if tensor is None else tensor_value(tensor)

    producers = {o: node for node in flatten(model.graph) for o in node.output if o}
    return Values(contents, producers, opsets=list(model.opset_import))


def fold_conditions(
    model: onnx.ModelProto, fixed: Mapping[str, NDArray[Any]]
) -> tuple[Decision, ...]:
    """Inline every branch whose condition is known, in place; return what was decided, in order."""
    decided: list[Decision] = []
    while any(node.op_type == "If" for node in flatten(model.graph)):
        values = values_of(model, fixed)
        infer_shapes(model, values)
        found = []
        for node in flatten(model.graph):
            if node.op_type == "If":
                condition = values.known(node.input[0])
                if condition is not None and condition.size == 1:
                    found.append((str(node.output[0]), bool(np.all(condition))))
        done = [decision for decision in found if inline_branch(model.graph, *decision)]
        if not done:
            break
        decided += done
    return tuple(decided)


def apply_decisions(model: onnx.ModelProto, decided: Iterable[Decision]) -> None:
    """Inline the branches that :func:`fold_conditions` chose for the same file."""
    for output, taken in decided:
        inline_branch(model.graph, output, taken)
