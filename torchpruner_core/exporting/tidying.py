"""The torch.export dialect, less what the exporter computes in the graph although it is constant.

Around each layer ``torch.onnx`` leaves operators that only compute shapes, bounds and the zeros of
a bias that is not there: three of five in a ResNet. They are folded here; whatever depends on a
parameter, a buffer or an input stays, under its own name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchpruner_core.graph.naming import MODULE_KEY, SCOPES_KEY, innermost_scope

if TYPE_CHECKING:
    import onnx_ir as ir

FOLDED_ELEMENTS = 1 << 16
"""Larger constants are left as they are computed: folding them would only make the file larger."""

_OPTIONAL_BIAS = {"Conv": 2, "ConvTranspose": 2}


def tidy(model: ir.Model) -> None:
    """Fold what is constant in ``model``, in place, and drop biases of zeros that nobody stored.

    Of each node's metadata the path of its module is left, which is what names come from.

    Postcondition: initializers of the program keep their names and contents, and every value that
    is left is computed as before.
    """
    import onnxscript.optimizer
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    stored = set(model.graph.initializers)

    def foldable(node: ir.Node) -> bool | None:
        reads = any(value is not None and value.name in stored for value in node.inputs)
        return False if reads and node.op_type not in ("Shape", "Size") else None

    scopes = _scopes_of_splits(model)
    onnxscript.optimizer.fold_constants(
        model,
        should_fold=foldable,
        input_size_limit=FOLDED_ELEMENTS,
        output_size_limit=FOLDED_ELEMENTS,
    )
    for node in model.graph:
        if node.op_type == "Split" and node.inputs[0] is not None and not node.metadata_props:
            node.metadata_props.update(scopes.get(node.inputs[0].name, {}))
    for node in model.graph:
        position = _OPTIONAL_BIAS.get(node.op_type)
        if position is None or len(node.inputs) != position + 1:
            continue
        bias = node.inputs[position]
        if bias is None or bias.name in stored or bias.const_value is None:
            continue
        if not np.any(bias.const_value.numpy()):
            node.resize_inputs(position)
    RemoveUnusedNodesPass()(model)
    for node in model.graph.all_nodes():
        own = node.metadata_props.get(SCOPES_KEY)
        node.metadata_props.clear()
        if own is not None:
            node.metadata_props[MODULE_KEY] = innermost_scope(own)
    for name in [
        n for n, v in model.graph.initializers.items() if n not in stored and not v.uses()
    ]:
        del model.graph.initializers[name]


def _scopes_of_splits(model: ir.Model) -> dict[str | None, dict[str, str]]:
    """Return where each value is split: folding makes new ``Split`` operators that do not say."""
    return {
        node.inputs[0].name: dict(node.metadata_props)
        for node in model.graph
        if node.op_type == "SplitToSequence" and node.inputs[0] is not None
    }
