"""What tools leave in files and runtimes put up with, brought to the one form that the importer reads.

Old operator sets are converted, stored tensors that appear twice are the last of them (as onnxruntime
reads it), operators stand after what they read, and sparse constants are written out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from math import prod
from typing import TYPE_CHECKING, Any

from torchpruner_core.errors import InvalidModelError, UnsupportedModelError
from torchpruner_core.importing.bodies import all_graphs, captured, may_hold_graphs

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

OLDEST_OPSET = 7
"""The first operator set whose broadcasting is numpy's, and the first that onnxruntime promises to run."""

STATED_SINCE = 3
"""The format version from which a file states its operator sets; before, there was only the first."""

SPARSE_LIMIT = 1 << 24
"""A sparse constant of more numbers than this is not written out."""


def plain_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` in the plain form, changed in place where it can be.

    Raises ``InvalidModelError`` for what no runtime reads and ``UnsupportedModelError`` for an operator
    set that is newer than what is installed.
    """
    for graph in all_graphs(model.graph):
        _last_of_each_tensor(graph)
        _in_order(graph)
        _dense_constants(graph)
    return _known_opset(model)


def _known_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    stated = [e.version for e in model.opset_import if e.domain in ("", "ai.onnx")]
    if not stated and model.ir_version < STATED_SINCE:
        model.opset_import.add(domain="", version=1)
        stated = [1]
    if not stated:
        if any(node.domain in ("", "ai.onnx") for node in model.graph.node):
            raise InvalidModelError(
                "the file does not state which operator set of ONNX it uses (opset_import); "
                "export the model again"
            )
        return model
    version = stated[0]
    if version < 1:
        raise InvalidModelError(f"the file states the operator set {version}; the first is 1")
    if version > newest:
        raise UnsupportedModelError(
            f"the file uses operator set {version}, and onnx {onnx.__version__} knows them up to "
            f"{newest}: upgrade onnx, or export the model with opset_version={newest}"
        )
    return model if version >= OLDEST_OPSET else _converted(model, version)


def _converted(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """Return the model in the oldest operator set that runtimes take, or as it is where that fails.

    The rules read operands that begin at an axis, and slopes for each channel; ONNX's converter
    puts both at the wrong axis.
    """
    from onnx import version_converter

    for node in model.graph.node:
        named = {attribute.name for attribute in node.attribute}
        if node.op_type == "PRelu" or {"axis", "broadcast"} <= named:
            return model
    try:
        return version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:
        logger.info("operator set %d is read as it is: %s", version, error)
        return model


def _last_of_each_tensor(graph: Any) -> None:
    names = [tensor.name for tensor in graph.initializer]
    if len(set(names)) == len(names):
        return
    last = {name: position for position, name in enumerate(names)}
    for position in reversed(range(len(names))):
        if last[names[position]] != position:
            del graph.initializer[position]


def _in_order(graph: Any) -> None:
    """Sort the operators, where one stands before what it reads; a cycle is left for the importer to name."""
    producer = {o: k for k, node in enumerate(graph.node) for o in node.output if o}
    needs = [[producer[name] for name in _reads(node) if name in producer] for node in graph.node]
    if all(max(needed, default=-1) < k for k, needed in enumerate(needs)):
        return
    try:
        order = list(TopologicalSorter(dict(enumerate(needs))).static_order())
    except CycleError:
        return
    nodes = [type(node).FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes[k] for k in order)


def _reads(node: Any) -> Iterator[str]:
    yield from node.input
    if may_hold_graphs(node):
        yield from captured(node)


def _dense_constants(graph: Any) -> None:
    for node in graph.node:
        if node.op_type != "Constant" or node.attribute[0].name != "sparse_value":
            continue
        import numpy as np
        import onnx

        sparse = node.attribute[0].sparse_tensor
        dims = tuple(sparse.dims)
        if not 0 <= prod(dims) <= SPARSE_LIMIT:
            raise UnsupportedModelError(
                f"the constant {node.output[0]!r} is sparse and has {prod(dims)} entries; at most "
                f"{SPARSE_LIMIT} are written out. Store it as a dense tensor"
            )
        try:
            values = onnx.numpy_helper.to_array(sparse.values)
            places = onnx.numpy_helper.to_array(sparse.indices)
            whole = np.zeros(dims, dtype=values.dtype)
            whole[tuple(places.T) if places.ndim == 2 else np.unravel_index(places, dims)] = values
        except (ValueError, IndexError, TypeError, KeyError) as error:
            raise InvalidModelError(
                f"the sparse constant {node.output[0]!r} is damaged: {error}"
            ) from error
        del node.attribute[:]
        node.attribute.append(
            onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(whole))
        )
