"""The parameters and buffers of an ONNX file, under the names that its graph gives them.

A client that exported an ``nn.Module`` adds the metadata entry :data:`STATE_KEY`: the keys of the
module's state dict in order, and the small tensors among them that no operator reads
(``num_batches_tracked``).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchpruner_core.cut_result import TensorSpec

STATE_KEY = "torchpruner.state"
ROOT = "self."


def named_initializers(path: Path, inputs: list[TensorSpec]) -> Iterator[tuple[str, Any, int]]:
    """Yield ``(name, TensorProto, storage)``; ``storage`` is equal for names that are tied, else
    0."""
    from torchpruner_core.importing.external_data import large_tensors, opened_parts, unpacked

    with opened_parts(path) as parts:
        outside = {} if parts is None else large_tensors(*parts)
        for name, tensor, storage in _named(unpacked(path, weights=False), inputs):
            # Names that the client stated stand for small tensors: none of them lies outside.
            read = outside.get(tensor.name)
            yield name, tensor if read is None else read(), storage


def _named(data: bytes, inputs: list[TensorSpec]) -> Iterator[tuple[str, Any, int]]:
    from torchpruner_core import strip_weights
    from torchpruner_core.importing.folding import apply_decisions
    from torchpruner_core.importing.importer import read_graph
    from torchpruner_core.importing.parsing import parse

    graph = read_graph(strip_weights(data), inputs or None)
    model = parse(data)
    apply_decisions(model, graph.decided)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    sources = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Identity"
    }
    found: dict[str, tuple[Any, int]] = {}
    roots = {node.alias_of for node in graph.nodes.values() if node.alias_of}
    numbers = {name: number for number, name in enumerate(sorted(roots), 1)}
    for name, node in graph.nodes.items():
        if node.kind not in {"parameter", "buffer"}:
            continue
        value = node.value_name
        while value not in stored and value in sources:
            value = sources[value]
        if value in stored:
            storage = numbers.get(node.alias_of or name, 0)
            found[name.removeprefix(ROOT)] = stored[value], storage
    keys, extra = _stated(model)
    for name in (*graph.origin.parameters, *graph.origin.buffers):
        if name in stored and name not in found:
            found[name] = stored[name], 0
    for name, tensor in extra.items():
        found.setdefault(name, (tensor, 0))
    for name in keys or found:
        if name in found:
            yield name, *found[name]


def _stated(model: Any) -> tuple[list[str], dict[str, Any]]:
    """What the client said of the state; anything that does not fit is as if it were not there."""
    import onnx

    for entry in model.metadata_props:
        if entry.key != STATE_KEY:
            continue
        try:
            stated = json.loads(entry.value)
            extra = {}
            for name, text in stated["extra"].items():
                tensor = onnx.TensorProto.FromString(base64.b64decode(text))
                extra[str(name)] = tensor
            return [str(key) for key in stated["keys"]], extra
        except Exception:
            break
    return [], {}
