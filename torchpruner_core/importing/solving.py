"""From an imported graph to a solved one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from torchpruner_core.analysis.modules import DeferredModules, with_costs
from torchpruner_core.analysis.records import ModuleInfo, NodeInfo, OperatorInfo
from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.coupling.solve import solve
from torchpruner_core.coupling.ties import Ties
from torchpruner_core.errors import GraphError, TorchPrunerError
from torchpruner_core.graph.naming import self_name
from torchpruner_core.importing.archives import is_archive
from torchpruner_core.importing.external_data import unpacked
from torchpruner_core.importing.formats import read_model
from torchpruner_core.importing.importer import ImportedGraph, read_graph
from torchpruner_core.importing.input_shapes import InputSpecs
from torchpruner_core.importing.stored_indices import (
    declare_shared_indices,
    release_stored_indices,
)
from torchpruner_core.importing.templates import declare_templates, release_templates
from torchpruner_core.importing.wire import Buffer, strip_weights
from torchpruner_core.importing.zeros import declare_inexact_sums

Progress = Callable[[str, float], None]


def solve_onnx(
    data: Buffer | str | Path,
    inputs: InputSpecs = None,
    progress: Progress | None = None,
    *,
    max_slices: int | None = None,
) -> SolvedGraph:
    """Return the solved graph of an ONNX model, given as bytes or as a path.

    ``inputs`` gives shapes, by name or in order, where the file leaves them open. ``progress`` is
    called with a stage's name and the fraction done. Weights are not read. ``max_slices`` bounds the
    sum of the lengths of all axes that are not tied to each other, which time and memory go with.

    Raises ``InvalidModelError``, ``InputSpecError``, ``UnsupportedModelError`` or
    ``GraphTooLargeError``.
    """
    report = progress or (lambda stage, done: None)
    report("reading", 0.0)
    if isinstance(data, str | Path):
        data = read_model(Path(data), weights=False)
    elif is_archive(data):
        data = unpacked(bytes(data), weights=False)
    weightless = strip_weights(data, keep_metadata=True)
    report("inferring shapes", 0.2)
    graph = read_graph(weightless, inputs)
    report("coupling", 0.6)
    solved = solve_graph(graph, max_slices)
    report("done", 1.0)
    return solved


def solve_graph(graph: ImportedGraph, max_slices: int | None = None) -> SolvedGraph:
    """Return the solved form of an imported graph; see :func:`solve_onnx` for ``max_slices``."""
    ties = declare(graph)
    inputs = [
        axis
        for node in graph.inputs
        for axis in range(node.first_axis, node.first_axis + node.rank)
    ]
    visible = sum(node.rank for node in graph.nodes.values())
    coupling = solve(ties, inputs, visible, max_slices)
    flops = [0] * len(graph.operators)
    for operator, factor, classes in coupling.costs:
        flops[operator] += factor * prod(int(coupling.class_length[c]) for c in classes)
    operators = {
        op.name: OperatorInfo(
            op.name,
            op.type,
            self_name(op.module),
            tuple([node.name for node in op.in_data if node is not None]),
            tuple([node.name for node in op.out_data]),
            flops[k],
        )
        for k, op in enumerate(graph.operators.values())
    }
    nodes = {
        node.name: NodeInfo(
            node.name,
            node.shape,
            node.dtype,
            node.kind,
            node.module or "self",
            node.in_operator.name if node.in_operator else None,
            tuple([user.name for user in node.out_operators]),
            node.alias_of,
        )
        for node in graph.nodes.values()
    }
    return SolvedGraph(
        nodes=nodes,
        operators=operators,
        modules=DeferredModules(
            partial(_modules, graph.origin.module_types, graph.module_paths, nodes, operators)
        ),
        inputs=tuple(node.name for node in graph.inputs),
        outputs=tuple(dict.fromkeys(node.name for node in graph.outputs)),
        coupling=coupling,
        metadata=_metadata(graph),
    )


def _metadata(graph: ImportedGraph) -> dict[str, Any]:
    found: dict[str, Any] = {"opset": {e.domain: e.version for e in graph.model.opset_import}}
    if graph.fixed:
        names = {node.value_name: node.name for node in graph.inputs}
        found["values"] = {names[k]: v.ravel().tolist() for k, v in graph.fixed.items()}
    unread = _unread(graph)
    if unread:
        found["unread"] = unread
    if graph.transposed:
        found["transposed"] = list(graph.transposed)
    if graph.notes:
        found["notes"] = list(graph.notes)
    return found


def _unread(graph: ImportedGraph) -> list[str]:
    """Return the parameters and buffers, scalars aside, that no operator reads and no output is."""
    shown = {node.name for node in graph.outputs}
    read = {
        node.name
        for node in graph.nodes.values()
        if node.out_operators or node.alias_of is not None or node.name in shown
    }
    origin = graph.origin
    aside = {*origin.scalars, *origin.aliases}
    return [
        name
        for path in (*origin.parameters, *origin.buffers)
        if path not in aside and (name := self_name(path)) not in read
    ]


def declare(graph: ImportedGraph) -> Ties:
    """Number every tensor's axes and let every operator declare its ties.

    Operators that compute constants of the program declare none: what they compute can be
    replaced by a shorter constant.
    """
    ties = Ties()
    release_stored_indices(graph.operators.values())
    release_templates(graph.nodes.values(), graph.operators.values())
    for node in graph.nodes.values():
        shape = node.shape
        known = not shape or min(shape) > 0
        first = node.first_axis = ties.new_axes(shape if known else [max(n, 1) for n in shape])
        for dim, size in enumerate(() if known else shape):
            if size < 1:
                ties.opaque(first + dim, "its size is not known before the model runs")
        if node.kind in ("parameter", "buffer", "constant", "input"):
            ties.sources.update(range(first, first + len(shape)))
    for node in graph.nodes.values():
        if node.alias_of is not None:
            for dim in range(node.rank):
                ties.same(node.axis(dim), graph.nodes[node.alias_of].axis(dim))
    for position, operator in enumerate(graph.operators.values()):
        if operator.is_constant:
            ties.begin(position)
            for node in operator.out_data:
                ties.sources.update(range(node.first_axis, node.first_axis + node.rank))
            continue
        try:
            operator.declare(ties, position)
        except TorchPrunerError:
            raise
        except (
            ValueError,
            IndexError,
            KeyError,
            TypeError,
            AssertionError,
            ZeroDivisionError,
        ) as error:
            if any(
                node is not None and -1 in node.shape
                for node in (*operator.in_data, *operator.out_data)
            ):
                operator.opaque(ties, "its shape is not known before the model runs")
                continue
            raise GraphError(
                f"the rule for {operator.type} failed at {operator.name}: {error!r}; check that the "
                "model is valid ONNX, or register an operator class for this type",
                operator=operator.name,
                module=operator.module,
            ) from error
    _freeze_inner_constants(graph, ties)
    declare_shared_indices(graph.nodes.values(), graph.operators.values(), ties)
    declare_templates(graph.nodes.values(), graph.operators.values(), ties)
    declare_inexact_sums(graph.nodes.values(), graph.operators.values(), ties)
    return ties


def _freeze_inner_constants(graph: ImportedGraph, ties: Ties) -> None:
    """Declare constants opaque that only other constants are computed from: no layer reads them."""
    for node in graph.nodes.values():
        computed = node.in_operator is not None and node.in_operator.is_constant
        if (computed or node.kind == "constant") and all(
            user.is_constant for user in node.out_operators
        ):
            for dim, size in enumerate(node.shape):
                if size != 1:
                    ties.opaque(node.axis(dim), f"constants are computed from it ({node.name})")


def _modules(
    types: Mapping[str, str],
    paths: Collection[str],
    nodes: dict[str, NodeInfo],
    operators: dict[str, OperatorInfo],
) -> dict[str, ModuleInfo]:
    """Return every module, parameter and buffer; ``types`` are the classes, ``paths`` all modules."""
    parts: dict[str, str] = {}
    for path in _in_order(types, paths, operators):
        parts[self_name(path)] = types.get(path, "Module")
    for node in nodes.values():
        if node.kind in ("parameter", "buffer"):
            parts.setdefault(node.name, "Parameter" if node.kind == "parameter" else "Buffer")
    children: dict[str, list[str]] = {name: [] for name in parts}
    for name in parts:
        parent = name.rpartition(".")[0]
        if parent in children:
            children[parent].append(name)
    own: dict[str, list[str]] = {name: [] for name in parts}
    for op in operators.values():
        own[op.module].append(op.name)
    modules = {
        name: ModuleInfo(
            name=name,
            type=kind,
            parent=name.rpartition(".")[0] or None,
            children=tuple(children[name]),
            parameters=tuple(c for c in children[name] if parts[c] in ("Parameter", "Buffer")),
            operators=tuple(own[name]),
        )
        for name, kind in parts.items()
    }
    return with_costs(modules, nodes, operators)


def _in_order(
    types: Mapping[str, str], paths: Collection[str], operators: Mapping[str, OperatorInfo]
) -> list[str]:
    """Return the paths of all modules, parents before children, siblings as the model has them.

    That is the order of registration where the program knows it, else that of the first use.
    """
    used = (op.module.partition(".")[2] for op in operators.values())
    seen = (p for p in (*types, *used) if p in paths)
    children: dict[str, list[str]] = {}
    placed: set[str] = set()
    for path in (*seen, *sorted(paths)):
        above: list[str] = []
        while path and path not in placed:
            placed.add(path)
            above.append(path)
            path = path.rpartition(".")[0]
        for each in reversed(above):
            children.setdefault(each.rpartition(".")[0], []).append(each)
    found: list[str] = []
    pending = [""]
    while pending:
        path = pending.pop()
        if path in paths or not path:
            found.append(path)
        pending.extend(reversed(children.get(path, ())))
    return found
