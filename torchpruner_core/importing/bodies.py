"""Control flow: the bodies of ``If``, ``Loop`` and ``Scan`` as parts of the one program they stand in.

A file is brought into one form first (:func:`settle`): every value has a name of its own, and what a
body stores is stored in the main graph, where a body may read it all the same. Then the nodes of
all bodies can be listed in one order (:func:`flatten`), each before the operator it belongs to, and
a branch whose condition is known takes the place of its ``If`` (:func:`inline_branch`).
Source: https://onnx.ai/onnx/repo-docs/IR.html#static-single-assignment
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

MAY_HOLD_GRAPHS = (0, 5, 10)
"""``AttributeProto.type``: not stated (files of the first format), ``GRAPH``, ``GRAPHS``."""

FLATTENED = frozenset({"If", "Loop", "Scan"})
"""Operators whose bodies are part of the graph; those of others are read as a whole."""

HOLDERS = frozenset({*FLATTENED, "SequenceMap"})
"""The operators of ONNX's own domain that hold graphs."""

STANDARD_DOMAINS = ("", "ai.onnx")


def is_flattened(node: Any) -> bool:
    """Return whether a node's bodies are part of the graph."""
    return node.op_type in FLATTENED and node.domain in STANDARD_DOMAINS


def may_hold_graphs(node: Any) -> bool:
    """Return whether a node is of a kind that holds graphs; those of other domains may be."""
    return node.op_type in HOLDERS or node.domain not in STANDARD_DOMAINS


def graphs_of(node: Any) -> Iterator[Any]:
    """Yield the graphs that a node holds as attributes."""
    if not may_hold_graphs(node):
        return
    for attribute in node.attribute:
        if attribute.type in MAY_HOLD_GRAPHS:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def bodies_of(node: Any) -> list[Any]:
    """Return the bodies of a control flow operator: ``then`` before ``else``."""
    found = {a.name: a.g for a in node.attribute if a.type in MAY_HOLD_GRAPHS and a.HasField("g")}
    return [found[name] for name in ("then_branch", "else_branch", "body") if name in found]


def has_graphs(model: onnx.ModelProto) -> bool:
    """Return whether any operator of the main graph holds a graph."""
    return any(
        may_hold_graphs(node) and next(graphs_of(node), None) is not None
        for node in model.graph.node
    )


def flatten(graph: Any) -> Iterator[Any]:
    """Yield all nodes, those of bodies before the operator that holds them."""
    for node in graph.node:
        if is_flattened(node):
            for body in bodies_of(node):
                yield from flatten(body)
        yield node


def all_graphs(graph: Any) -> Iterator[Any]:
    """Yield ``graph`` and every graph in it, outermost first."""
    yield graph
    for node in graph.node:
        if may_hold_graphs(node):
            for inner in graphs_of(node):
                yield from all_graphs(inner)


def captured(node: Any) -> list[str]:
    """Return the outer values that an operator's subgraphs read."""
    found: dict[str, None] = {}
    for graph in graphs_of(node):
        inner = {i.name for i in graph.input} | {t.name for t in graph.initializer}
        for child in graph.node:
            for name in (*child.input, *captured(child)):
                if name and name not in inner:
                    found[name] = None
            inner.update(child.output)
        found.update({o.name: None for o in graph.output if o.name not in inner})
    return list(found)


def settle(model: onnx.ModelProto) -> None:
    """Give every value of every body a name of its own, and store in the main graph what bodies store."""
    main = model.graph
    taken = {info.name for info in main.input} | {tensor.name for tensor in main.initializer}
    taken.update(output for node in main.node for output in node.output)
    lifted: list[Any] = []
    for node in main.node:
        for body in graphs_of(node):
            _rename(body, {}, taken, lifted)
    main.initializer.extend(lifted)


def _rename(graph: Any, outer: Mapping[str, str], taken: set[str], lifted: list[Any]) -> None:
    names = dict(outer)

    def own(name: str) -> str:
        fresh, count = name, 0
        while fresh in taken:
            count += 1
            fresh = f"{name}#{count}"
        taken.add(fresh)
        names[name] = fresh
        return fresh

    for info in graph.input:
        info.name = own(info.name)
    for tensor in graph.initializer:
        tensor.name = own(tensor.name)
        lifted.append(type(tensor)())
        lifted[-1].CopyFrom(tensor)
    del graph.initializer[:]
    del graph.value_info[:]
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = names.get(name, name)
        for body in graphs_of(node):
            _rename(body, names, taken, lifted)
        for position, name in enumerate(node.output):
            if name:
                node.output[position] = own(name)
    for info in graph.output:
        info.name = names.get(info.name, info.name)


def inline_branch(graph: Any, output: str, taken: bool) -> bool:
    """Put the branch of the ``If`` that computes ``output`` in its place; return whether it was there."""
    for inner in all_graphs(graph):
        for position, node in enumerate(inner.node):
            if node.op_type == "If" and output in node.output:
                _inline(inner, position, bodies_of(node)[0 if taken else 1])
                return True
    return False


def _inline(graph: Any, position: int, branch: Any) -> None:
    import onnx

    nodes = [_copy(node) for node in graph.node]
    old = nodes[position]
    moved = [_copy(node) for node in branch.node]
    for name, info in zip(old.output, branch.output, strict=True):
        if name:
            moved.append(onnx.helper.make_node("Identity", [info.name], [name]))
    del graph.node[:]
    graph.node.extend([*nodes[:position], *moved, *nodes[position + 1 :]])


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
