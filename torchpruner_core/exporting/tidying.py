"""The torch.export dialect, less what the exporter computes in the graph although it is constant.

Around each layer ``torch.onnx`` leaves operators that only compute shapes, bounds and the zeros of
a bias that is not there: three of five in a ResNet. They are folded here; whatever depends on a
parameter, a buffer or an input stays, under its own name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from torchpruner_core.graph.naming import MODULE_KEY, SCOPES_KEY, innermost_scope

if TYPE_CHECKING:
    import onnx_ir as ir

FOLDED_ELEMENTS = 1 << 16
"""Larger constants are left as they are computed: folding them would only make the file larger."""

FX_KEY = "pkg.torch.onnx.fx_node"
"""The metadata entry in which the exporter says which call a node comes from."""

TEMPLATE_DOMAIN = "torchpruner.template"

_MADE_BY_ANOTHER = re.compile(r"aten\.new_(zeros|ones|full|empty)\.")
_COPIES_A_SHAPE = re.compile(r"(aten|prims)\.(\w+_like|new_\w+|fill|var\w*|std\w*)\.")

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
    measured = _measure_templates(model)

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
    for reading in measured:
        reading.domain = ""
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


def _measure_templates(model: ir.Model) -> list[ir.Node]:
    """Let tensors that were made in the shape of another be as large as that one is.

    ``f.new_zeros(f.shape)`` reaches the exporter as numbers; those that are the shape of ``f`` are
    read off it, as for ``zeros_like(f)``. Returns the ``Shape`` nodes that say so, in a domain of
    their own, which no folding knows.
    """
    import onnx_ir as ir

    measured: list[ir.Node] = []
    for node in list(model.graph):
        call = node.metadata_props.get(FX_KEY, "")
        if node.op_type == "Shape" and _COPIES_A_SHAPE.search(call):
            measured.append(node)
        if node.op_type not in ("ConstantOfShape", "Expand") or not _MADE_BY_ANOTHER.search(call):
            continue
        like = next((n for n in _of_same_call(model, node) if n.op_type == "CastLike"), None)
        template = None if like is None else like.inputs[1]
        shape = node.inputs[-1]
        asked = None if shape is None else ir.convenience.get_const_tensor(shape)
        if template is None or template.shape is None or asked is None:
            continue
        if list(template.shape) == asked.numpy().tolist():
            reading = ir.node("Shape", [template], metadata_props=dict(node.metadata_props))
            model.graph.insert_before(node, reading)
            node.replace_input_with(len(node.inputs) - 1, reading.outputs[0])
            measured.append(reading)
    for reading in measured:
        reading.domain = TEMPLATE_DOMAIN
    return measured


def _of_same_call(model: ir.Model, node: ir.Node) -> list[ir.Node]:
    """Return the nodes that one call in PyTorch became."""
    call = node.metadata_props.get(FX_KEY)
    return [other for other in model.graph if other.metadata_props.get(FX_KEY) == call]


def _scopes_of_splits(model: ir.Model) -> dict[str | None, dict[str, str]]:
    """Return where each value is split: folding makes new ``Split`` operators that do not say."""
    return {
        node.inputs[0].name: dict(node.metadata_props)
        for node in model.graph
        if node.op_type == "SplitToSequence" and node.inputs[0] is not None
    }
