"""A solved graph as bytes: a JSON header and numpy arrays in one compressed ``.npz``."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from torchpruner_core.analysis.coupling import ClassChange, ClassSelection, ClassView, Coupling
from torchpruner_core.analysis.graph_data import GraphData
from torchpruner_core.analysis.records import ModuleInfo, NodeInfo, OperatorInfo
from torchpruner_core.errors import InvalidModelError

Graph = TypeVar("Graph", bound=GraphData)

SIZE_LIMIT = 1 << 31
"""A stored graph that unpacks to more bytes than this is refused: none is that large."""

FORMAT = 2
"""Changes when a graph stored by an older version can no longer be read."""

_ARRAYS = (
    "axis_class",
    "class_length",
    "class_start",
    "class_frozen",
    "component",
    "component_reason",
)


def dump(graph: GraphData) -> bytes:
    """Return ``graph`` as bytes."""
    coupling = graph.coupling
    header = {
        "format": FORMAT,
        "nodes": [_row(node) for node in graph.nodes.values()],
        "operators": [_row(operator) for operator in graph.operators.values()],
        "modules": [_row(module) for module in graph.modules.values()],
        "inputs": graph.inputs,
        "outputs": graph.outputs,
        "metadata": graph.metadata,
        "reasons": coupling.reasons,
        "views": [_row(view) for view in coupling.views],
        "changes": [_row(change) for change in coupling.changes],
        "selections": [
            [s.operator, s.key, s.owner, s.along, s.sources] for s in coupling.selections
        ],
        "renormalised": coupling.renormalised,
        "costs": coupling.costs,
    }
    arrays = {name: getattr(coupling, name) for name in _ARRAYS}
    arrays |= {f"selection{k}": s.values for k, s in enumerate(coupling.selections)}
    text = json.dumps(header, separators=(",", ":")).encode()
    arrays["header"] = np.frombuffer(text, dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return zlib.compress(buffer.getvalue(), level=1)


def load(data: bytes, made: type[Graph]) -> Graph:
    """Read :func:`dump`'s bytes into a ``made``; raises ``InvalidModelError`` for anything else."""
    try:
        with np.load(io.BytesIO(_unpacked(data)), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(arrays.pop("header").tobytes())
    except (zlib.error, zipfile.BadZipFile, ValueError, KeyError, OSError) as error:
        raise InvalidModelError(f"these bytes are not a stored graph: {error}") from error
    if header.get("format") != FORMAT:
        raise InvalidModelError(
            f"the stored graph has format {header.get('format')}, this version reads {FORMAT}; "
            "build it again from the model"
        )
    coupling = Coupling(
        **{name: arrays[name] for name in _ARRAYS},
        reasons=tuple(header["reasons"]),
        views=tuple(ClassView(w, tuple(f), op) for w, f, op in header["views"]),
        changes=tuple(ClassChange(*row) for row in header["changes"]),
        selections=tuple(
            ClassSelection(op, key, owner, tuple(along), arrays[f"selection{k}"], tuple(sources))
            for k, (op, key, owner, along, sources) in enumerate(header["selections"])
        ),
        renormalised=tuple((op, owner) for op, owner in header["renormalised"]),
        costs=tuple((op, k, tuple(classes)) for op, k, classes in header["costs"]),
    )
    nodes = [NodeInfo(*map(_frozen, row)) for row in header["nodes"]]
    operators = [OperatorInfo(*map(_frozen, row)) for row in header["operators"]]
    modules = [ModuleInfo(*map(_frozen, row)) for row in header["modules"]]
    return made(
        nodes={node.name: node for node in nodes},
        operators={operator.name: operator for operator in operators},
        modules={module.name: module for module in modules},
        inputs=tuple(header["inputs"]),
        outputs=tuple(header["outputs"]),
        coupling=coupling,
        metadata=header["metadata"],
    )


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(data, SIZE_LIMIT)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("it is cut short, or unpacks to more than a graph can hold")
    return unpacked


def _row(item: Any) -> list[Any]:
    return [getattr(item, field.name) for field in fields(item)]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
