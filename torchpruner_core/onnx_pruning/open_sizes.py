"""Sizes that a file leaves open: does the pruned model still follow them?

Both models are read once more with every open size doubled. A constant that was written down at the
sizes of the analysis shows there, as a shape that is not the original's less the cut.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from torchpruner_core.cut_result import CutResult, TensorSpec
from torchpruner_core.errors import FixedSizesWarning, GraphError
from torchpruner_core.importing.importer import ImportedGraph, read_graph
from torchpruner_core.importing.wire import strip_weights
from torchpruner_core.onnx_pruning.sliced import OpenModel, open_axes_of


def declare_fixed_sizes(opened: OpenModel, data: bytes, pruned: bytes, result: CutResult) -> bytes:
    """Return ``pruned``; where it holds at the sizes of the analysis only, its inputs say so.

    Warns with ``FixedSizesWarning`` then. A model that does not take the doubled sizes itself is
    returned as it is.
    """
    import onnx

    larger = _doubled(opened, result)
    if larger is None:
        return pruned
    try:
        before = read_graph(strip_weights(data), larger)
    except GraphError:
        return pruned
    reason = _difference(opened, before, pruned, larger)
    if reason is None:
        return pruned
    warnings.warn(
        f"the pruned model holds for the input sizes of the analysis only: {reason}; its inputs are "
        "declared with these sizes. For others, analyse and prune the model with them",
        FixedSizesWarning,
        stacklevel=3,
    )
    model = onnx.load_model_from_string(pruned)
    nodes = {node.value_name: node for node in opened.graph.nodes.values()}
    for info in (*model.graph.input, *model.graph.output):
        node = nodes.get(info.name)
        if node is not None and node.is_shaped:
            for dim, size in zip(
                info.type.tensor_type.shape.dim, opened.shape_after(node), strict=False
            ):
                if size > 0:
                    dim.dim_value = size
    fixed: bytes = model.SerializeToString()
    return fixed


def _doubled(opened: OpenModel, result: CutResult) -> list[TensorSpec] | None:
    """Return the original's inputs with open sizes doubled; nothing where that cannot be asked."""
    axes = open_axes_of(opened.model)
    if any(spec.value is not None for spec in result.inputs) or not any(axes.values()):
        return None
    return [
        TensorSpec(
            node.value_name,
            tuple(
                2 * n if axis in axes.get(node.value_name, ()) else n
                for axis, n in enumerate(node.shape)
            ),
            node.dtype,
        )
        for node in opened.graph.inputs
    ]


def _difference(
    opened: OpenModel, before: ImportedGraph, pruned: bytes, larger: list[TensorSpec]
) -> str | None:
    known = opened.graph.values
    for name in opened.replaced:
        if known is None or before.values is None:
            break
        old, new = known.known(name), before.values.known(name)
        if old is not None and new is not None and not np.array_equal(old, new):
            return f"{name!r} is stored in it, and follows an open size in the original"
    inputs = [
        TensorSpec(spec.name, _less(spec.shape, opened, spec.name), spec.dtype) for spec in larger
    ]
    try:
        after = read_graph(strip_weights(pruned), inputs)
    except GraphError as error:
        return error.detail
    sizes = {node.value_name: node.shape for node in opened.graph.nodes.values()}
    expected = {node.value_name: node.shape for node in before.nodes.values()}
    for node in after.nodes.values():
        shape, analysed = expected.get(node.value_name), sizes.get(node.value_name)
        if shape is None or analysed is None or -1 in (*shape, *analysed, *node.shape):
            continue
        if len(shape) != len(analysed):
            continue  # an open size of one was squeezed away in the analysis
        cuts = opened.cuts.get(node.value_name) or [None] * len(shape)
        follows = [
            size == analysed[axis] or cuts[axis] is None or not len(cuts[axis])  # type: ignore[arg-type]
            for axis, size in enumerate(shape)
        ]
        if all(follows) and node.shape != _less(shape, opened, node.value_name):
            return f"a constant near {node.module} was written down for them"
    return None


def _less(shape: Any, opened: OpenModel, name: str) -> tuple[int, ...]:
    cuts = opened.cuts.get(name) or [None] * len(shape)
    return tuple(n - (0 if c is None else len(c)) for n, c in zip(shape, cuts, strict=True))
