"""Constants that follow sizes which a file leaves open: computed as before, and the kept slices selected.

A table of relative positions is as wide as the sentence, and the zeros that a layer begins with as many
as the batch. What is stored in place of them would hold for the sizes of the analysis alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from torchpruner_core.importing.bodies import all_graphs, flatten
from torchpruner_core.onnx_pruning.sliced import OpenModel

SIZES = ("Shape", "Size")


def follow_open_sizes(opened: OpenModel) -> set[str]:
    """Return the computed constants that are cut, read sizes of tensors, and compute with nothing cut.

    Empty where the file leaves no size open.
    """
    if not opened.is_open:
        return set()
    producers = {o: node for node in flatten(opened.model.graph) for o in node.output}
    wanted = [
        node.value_name
        for operator in opened.graph.operators.values()
        if operator.is_constant
        for node in operator.out_data
        if node.value_name in opened.cuts and node.value_name not in opened.renumbers
    ]
    return {
        name
        for name in wanted
        if any(node.op_type in SIZES for node in _behind(name, producers))
        and not _is_changed(opened, name, producers)
    }


def _behind(
    name: str, producers: Mapping[str, Any], settled: Callable[[str], bool] = lambda name: False
) -> Iterator[Any]:
    """Yield the operators that a constant is computed by, back to sizes and to values that are settled."""
    seen = {name}
    pending = [name]
    while pending:
        node = producers.get(pending.pop())
        if node is None:
            continue
        yield node
        if node.op_type not in SIZES:
            new = [each for each in node.input if each and each not in seen and not settled(each)]
            seen.update(new)
            pending.extend(new)


def _is_changed(opened: OpenModel, name: str, producers: Mapping[str, Any]) -> bool:
    """Return whether the cut changes anything that a constant is computed from."""
    before, after = opened.graph.values, opened.computed

    def stays(value: str) -> bool:
        old = None if before is None else before.known(value)
        new = None if after is None else after.known(value)
        return old is not None and new is not None and np.array_equal(old, new)

    return any(
        each in opened.cuts or each in opened.renumbers
        for node in _behind(name, producers, stays)
        for each in node.input
        if not stays(each)
    )


def select_kept(opened: OpenModel, name: str) -> None:
    """Put selections of the kept slices behind the operator that computes a value."""
    import onnx

    cuts = [(dim, cut) for dim, cut in enumerate(opened.cuts[name]) if cut is not None and len(cut)]
    node = next(n for n in opened.graph.nodes.values() if n.value_name == name)
    for graph in all_graphs(opened.model.graph):
        for place, producer in enumerate(graph.node):
            if name not in producer.output:
                continue
            current = opened.fresh(f"{name}#whole")
            producer.output[list(producer.output).index(name)] = current
            for number, (dim, cut) in enumerate(cuts):
                kept = np.setdiff1d(np.arange(node.shape[dim]), cut)
                index = opened.fresh(f"{name}#{dim}kept")
                opened.model.graph.initializer.append(onnx.numpy_helper.from_array(kept, index))
                last = number == len(cuts) - 1
                made = name if last else opened.fresh(f"{name}#{dim}selected")
                gather = onnx.helper.make_node("Gather", [current, index], [made], axis=dim)
                graph.node.insert(place + 1 + number, gather)
                current = made
            return
