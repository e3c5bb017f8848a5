"""A file's bytes to a checked model in the one form that the importer reads.

Functions are inlined, what bodies store is stored in the main graph, and numbers that a foreign
exporter wrote into ``Constant`` operators are initializers as any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from torchpruner_core.errors import InvalidModelError, UnsupportedModelError
from torchpruner_core.graph.origin import METADATA_KEY
from torchpruner_core.importing.bodies import all_graphs, has_graphs, settle
from torchpruner_core.importing.plain_form import plain_form

if TYPE_CHECKING:
    import onnx

WEIGHT_TYPES = frozenset({1, 2, 3, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23})
"""Element types that weights are stored in: floating-point numbers, and integers of 8 and 4 bits."""

CONSTANT_INITIALIZERS_SINCE = 4
"""The format version from which an initializer need not be an input."""

_TORCH_LITERALS = r"(^|/)Constant(_\d+)?_output_\d+$|^_?val_\d+$"
"""Values of ``Constant`` operators in which PyTorch's exporters write a ``forward()``'s own numbers."""


def parse(data: bytes) -> onnx.ModelProto:
    """Return a checked model in the importer's form; raises ``InvalidModelError``.

    The form depends on names and shapes alone, so that a file gives the same one with its weights
    and without them.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise InvalidModelError(f"the file is not a valid ONNX model: {error}") from error
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise UnsupportedModelError(
                f"the tensor {tensor.name!r} is stored outside the file; give the folder that holds "
                "both (a path, or a zip of them), save the model as one file (onnx.save without "
                "external data), or upload it without its weights"
            )
    if not model.graph.output:
        raise InvalidModelError("the ONNX model has no outputs")
    _check_names_and_types(model)
    model = plain_form(model)
    if model.functions:
        import onnx.inliner

        try:
            model = onnx.inliner.inline_local_functions(model)
        except Exception as error:
            raise InvalidModelError(f"the model's functions cannot be inlined: {error}") from error
    del model.graph.value_info[:]
    _one_opset(model)
    _check_operators(model)
    _constant_initializers(model)
    if not any(entry.key == METADATA_KEY for entry in model.metadata_props):
        _lift_constants(model)
    if has_graphs(model):
        settle(model)
    return model


def _check_names_and_types(model: onnx.ModelProto) -> None:
    import onnx

    for node in model.graph.node:
        for text in (node.op_type, node.domain, node.name, *node.input, *node.output):
            if not isinstance(text, str):
                raise InvalidModelError(f"the file holds a name that is not UTF-8 text: {text!r}")
        if not node.op_type:
            raise InvalidModelError(
                f"the operator that computes {', '.join(node.output) or 'nothing'!r} has no type; the "
                "file is damaged: export the model again"
            )
    known = set(onnx.TensorProto.DataType.values())
    for tensor in model.graph.initializer:
        if tensor.data_type not in known:
            raise InvalidModelError(
                f"the stored tensor {tensor.name!r} has the element type {tensor.data_type}, which "
                f"onnx {onnx.__version__} does not know; upgrade onnx, or export the model again"
            )


def _one_opset(model: onnx.ModelProto) -> None:
    """Drop repeated entries of one domain, which merged files have, and add those left out."""
    import onnx

    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if versions.setdefault(domain, entry.version) != entry.version:
            raise InvalidModelError(
                f"the file asks for two versions of the operator set {domain or 'ai.onnx'!r}, "
                f"{versions[domain]} and {entry.version}"
            )
    stated = len(versions)
    for node in model.graph.node:
        domain = node.domain
        if domain and domain != "ai.onnx":
            versions.setdefault(domain, 1)  # onnxruntime asks for no entry of its own domain
    if not stated == len(versions) == len(model.opset_import):
        del model.opset_import[:]
        model.opset_import.extend(onnx.helper.make_opsetid(d, v) for d, v in versions.items())


def _check_operators(model: onnx.ModelProto) -> None:
    """Raise where an operator lacks an input or output that ONNX says it has: no rule expects that."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    asked: dict[tuple[str, str], tuple[int, list[int], int]] = {}
    for graph in all_graphs(model.graph):
        for node in graph.node:
            kind = (node.op_type, node.domain)
            found = asked.get(kind)
            if found is None:
                found = asked[kind] = _requirements(*kind, versions)
            inputs, required, outputs = found
            given = node.input
            if (
                len(given) < inputs
                or len(node.output) < outputs
                or any(not given[k] for k in required)
            ):
                raise InvalidModelError(
                    f"the operator {node.name or node.op_type!r} ({node.op_type}) has "
                    f"{len([name for name in given if name])} inputs and {len(node.output)} "
                    f"outputs; ONNX asks for at least {inputs} and {outputs}. The "
                    "file is damaged: export the model again"
                )


def _requirements(
    op_type: str, domain: str, versions: Mapping[str, int]
) -> tuple[int, list[int], int]:
    """Return an operator's least number of inputs, those that may not be empty, and of outputs."""
    import onnx

    domain = "" if domain == "ai.onnx" else domain
    try:
        schema = onnx.defs.get_schema(op_type, versions.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return 0, [], 0
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    formals = enumerate(schema.inputs[: schema.min_input])
    required = [k for k, formal in formals if formal.option != optional]
    return schema.min_input, required, schema.min_output


def _constant_initializers(model: onnx.ModelProto) -> None:
    """Make initializers constants of the program, which until format 4 were inputs as well."""
    stored = {tensor.name for tensor in model.graph.initializer}
    if any(info.name in stored for info in model.graph.input):
        inputs = [_copy(info) for info in model.graph.input if info.name not in stored]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, CONSTANT_INITIALIZERS_SINCE)


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _lift_constants(model: onnx.ModelProto) -> None:
    """Store the weights among ``Constant`` operators as initializers, each under its value's name."""
    literals = re.compile(_TORCH_LITERALS if model.producer_name.startswith("pytorch") else "(?!)")
    for graph in all_graphs(model.graph):
        lifted = {
            k: None if literals.search("".join(node.output)) else _weight(node)
            for k, node in enumerate(graph.node)
        }
        if not any(tensor is not None for tensor in lifted.values()):
            continue
        kept = []
        for k, node in enumerate(graph.node):
            tensor = lifted[k]
            if tensor is None:
                kept.append(_copy(node))
                continue
            stored = graph.initializer.add()
            stored.CopyFrom(tensor)
            stored.name = node.output[0]
        del graph.node[:]
        graph.node.extend(kept)


def _weight(node: Any) -> Any:
    """Return the tensor of a ``Constant`` that holds several numbers of a weight's type."""
    if node.op_type != "Constant" or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value_floats" and len(attribute.floats) > 1:
        import onnx

        kind, count = onnx.TensorProto.FLOAT, len(attribute.floats)
        return onnx.helper.make_tensor("", kind, [count], list(attribute.floats))
    if attribute.name != "value":
        return None
    tensor = attribute.t
    return tensor if tensor.data_type in WEIGHT_TYPES and prod(tensor.dims) > 1 else None
