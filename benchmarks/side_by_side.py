"""One model, both engines, one process, one thread: ``python -m benchmarks.side_by_side NAME``.

Prints one JSON object a line as soon as it is known, ours first, so that a peer that does not come
back costs its own figures only: the parent ends this process when the peer's time is up.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

import torchpruner_core
from benchmarks import peer
from benchmarks.models import CASES
from benchmarks.timing import Timing, timed_in_turn, timed_many

INDEX = [0, 1, 2, 3]
CUTS = 5


def main(name: str) -> None:
    """Measure the case called ``name``."""
    torch.set_num_threads(1)
    case = next(case for case in CASES if case.name == name)
    model, inputs = case.build()
    data = torchpruner_core.export_onnx(model, inputs)
    light = torchpruner_core.strip_weights(data)
    say("bytes", full=len(data), light=len(light))

    graph = torchpruner_core.solve_onnx(data)
    roots = spread(graph, model)
    say("cuts", modules=[name for name, _ in roots])
    # Once unmeasured above: the first call imports onnx and scipy.
    ours: dict[str, Callable[[], object]] = {
        "all": lambda: torchpruner_core.solve_onnx(data).groups(),
        "all_weightless": lambda: torchpruner_core.solve_onnx(light).groups(),
        "module_all": lambda: groups_of_module(model, inputs),
    }
    say_timings(timed_in_turn(ours, rounds=5, budget=4.0))
    say("groups", count=len(graph.groups()))
    queries = [query_of(graph, name) for name, _ in roots]
    say_timings({"query": timed_many(queries)})

    say("peer_begins")
    peer_graph = peer.build(model, inputs)
    count = peer.all_groups(peer_graph)
    say("peer_groups", count=count)
    # All again, in turn with the peer: what was said above stands only where the peer has no answer.
    both = {**ours, "peer_all": lambda: peer.all_groups(peer.build(model, inputs))}
    often = dict.fromkeys(ours, 3)  # a slow peer leaves time for one round only
    say_timings(timed_in_turn(both, rounds=5, budget=12.0, often=often))
    peer_queries: list[Callable[[], object]] = []
    for _, module in roots:
        try:
            peer.one_group(peer_graph, module, INDEX)
        except Exception:
            continue
        peer_queries.append(partial(peer.one_group, peer_graph, module, INDEX))
    if peer_queries:
        say_timings({"query": timed_many(queries), "peer_query": timed_many(peer_queries)})


def groups_of_module(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> object:
    """Return every group, from the ``nn.Module`` on: what a person waits for."""
    graph = torchpruner_core.ONNXGraph(model).build_graph(inputs, fill_value=False)
    return graph.solved.groups()


def say_timings(timings: Mapping[str, Timing]) -> None:
    """Tell the parent what was measured."""
    for name, timing in timings.items():
        say(name, seconds=timing.median, p99=timing.p99, calls=timing.calls)


def say(what: str, **values: Any) -> None:
    """Tell the parent one thing."""
    print(json.dumps({"what": what, **values}), flush=True)


def spread(graph: Any, model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Up to ``CUTS`` convolutions and linear layers, evenly over the depth, that can be cut."""
    found: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear) or len(module.weight) <= len(INDEX):
            continue
        try:
            query_of(graph, name)()
        except torchpruner_core.TorchPrunerError:
            continue
        found.append((name, module))
    step = max(1, len(found) // CUTS)
    return found[::step][:CUTS]


def query_of(graph: Any, module_name: str) -> Callable[[], object]:
    """The call that asks what goes with output channels ``INDEX`` of a module."""
    node = f"self.{module_name}.weight"
    return lambda: graph.cut_analysis(node, INDEX, 0)


if __name__ == "__main__":
    main(sys.argv[1])
