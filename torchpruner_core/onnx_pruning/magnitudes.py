"""Scores from an ONNX file's own weights, for plans made without PyTorch.

Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.importing.external_data import large_tensors, opened_parts, unpacked
from torchpruner_core.importing.importer import read_graph
from torchpruner_core.importing.parsing import parse
from torchpruner_core.importing.wire import strip_weights
from torchpruner_core.onnx_pruning.sliced import stored_array


def onnx_magnitudes(
    source: bytes | Path, graph: SolvedGraph
) -> Mapping[tuple[str, int], NDArray[np.float64]]:
    """Return the L2 norm of each slice of each prunable axis of the stored weights, by ``(node, dim)``.

    ``source`` is the file that ``graph`` was solved from; weights in files beside it are read one at a
    time. Arrays have the shape ``(size of that dim,)``. Weights of fewer than two axes are left out;
    quantised ones are taken as they are stored.
    """
    with opened_parts(source) as parts:
        outside = {} if parts is None else large_tensors(*parts)
        return _magnitudes(unpacked(source, weights=False), graph, outside)


def _magnitudes(
    data: bytes, graph: SolvedGraph, outside: Mapping[str, Callable[[], Any]]
) -> dict[tuple[str, int], NDArray[np.float64]]:
    specs = {name: graph.spec(name) for name in graph.inputs}
    imported = read_graph(strip_weights(data), specs)
    stored = {tensor.name: tensor for tensor in parse(data).graph.initializer}
    found: dict[tuple[str, int], NDArray[np.float64]] = {}
    for name, dim in (member for group in graph.groups() for member in group.members):
        node = imported.nodes[name]
        tensor = stored.get(node.value_name)
        if node.kind == "parameter" and tensor is not None and node.rank > 1:
            read = outside.get(tensor.name, lambda tensor=tensor: tensor)
            value: NDArray[Any] = stored_array(read()).astype(np.float64)
            others = tuple(k for k in range(node.rank) if k != dim)
            found[name, dim] = np.sqrt(np.square(value).sum(axis=others))
    return found
