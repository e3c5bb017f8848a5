"""Whose time an event of onnxruntime's profile is, after it has merged and renamed operators.

A convolution in its blocked layout is named after the value it writes, and one merged with what follows
after the last of them: ``relu_1_nchwc`` is a convolution, a batch norm and an activation. So names of nodes
and of values are looked up, and the time of a merged event goes to the nearest operator before it
that multiplies.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from torchpruner_core.analysis.graph_data import GraphData

MULTIPLIES = re.compile("Conv|Gemm|MatMul|Attention|LSTM|GRU|RNN|Einsum")
SUFFIXES = re.compile(r"(_nchwc|_token_\d+|_fused|_kernel_time)+$")


class Attribution:
    """The operators of a graph by the names that a profile may give them.

    ``values`` are the ONNX names of each operator's outputs, in the graph's order of operators.
    """

    def __init__(self, graph: GraphData, values: Sequence[Sequence[str]]) -> None:
        self.graph = graph
        self.names = list(graph.operators)
        self.by_value = {
            value: name
            for name, outputs in zip(self.names, values, strict=True)
            for value in outputs
        }

    def seconds(self, events: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
        """Return the seconds of each operator's events; ``""`` has those that belong to none."""
        found: dict[str, list[float]] = {}
        merged: list[tuple[str, float]] = []
        for event in events:
            name = self._named(str(event["name"]))
            spent = event["dur"] / 1e6
            kind = str(event.get("args", {}).get("op_name", ""))
            if name and MULTIPLIES.search(kind) and not self.graph.operators[name].flops:
                merged.append((name, spent))
            else:
                found.setdefault(name, []).append(spent)
        taken = {name for name in found if name and self.graph.operators[name].flops}
        origins = {name: self._origin(name, taken) for name in dict.fromkeys(n for n, _ in merged)}
        for name, spent in merged:
            found.setdefault(origins[name], []).append(spent)
        return found

    def _named(self, event: str) -> str:
        plain = SUFFIXES.sub("", event)
        position = re.match(r"operator_(\d+)_", event)
        if position is not None:
            return self.names[int(position[1])]
        return self.by_value.get(plain, "")

    def _origin(self, name: str, taken: set[str]) -> str:
        """Return the nearest operator before ``name`` that multiplies and has no event of its own."""
        operators, nodes = self.graph.operators, self.graph.nodes
        waiting, seen = deque([name]), {name}
        while waiting:
            current = waiting.popleft()
            if operators[current].flops and current not in taken:
                taken.add(current)
                return current
            for source in operators[current].inputs:
                producer = nodes[source].producer
                if producer is not None and producer not in seen:
                    seen.add(producer)
                    waiting.append(producer)
        return name
