"""The masked original: what a pruned model must equal.

Every slice that a cut lists is zero, and every operator that ``renormalises`` sees the kept slices
only: its inputs are gathered before it and its outputs scattered back into zeros behind it. All
other operators run at full size, as in the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from torchpruner_core.cut_dict import Cut, read_cut
from torchpruner_core.cut_result import CutResult
from torchpruner_core.graph.dtypes import np_dtype
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.importing.bodies import bodies_of, is_flattened
from torchpruner_core.importing.importer import SHAPE_OPERATORS
from torchpruner_core.onnx_pruning.counts import counts_of_statistics
from torchpruner_core.onnx_pruning.rewrite import new_constants
from torchpruner_core.onnx_pruning.sliced import (
    OpenModel,
    computed_after,
    open_model,
    separate_equals,
    stored_array,
    zero_array,
)
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.registry import STANDARD_DOMAINS

SELECTS_SINCE, PADS_BY_INPUT_SINCE = 9, 11
"""Operator sets that have ``Where``, and ``Pad`` with its amounts as an input."""

BY_INDICES = frozenset({"Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"})
"""Operators whose second input says places: a zero there is the first place, not nothing."""


def masked_onnx(data: bytes, result: Cut) -> bytes:
    """Return the ONNX model ``data`` with the slices of ``result`` masked; the shapes stay.

    Its outputs, less the slices cut from them, are the reference for the pruned model. Raises
    ``CutError`` where ``data`` and ``result`` do not belong together.
    """
    result = read_cut(result)
    opened = open_model(data, result)
    masker = _Masker(opened, result)
    return masker.run()


def _read_as_indices(opened: OpenModel) -> set[str]:
    """Return the values that say places, and those that they are made of."""
    by_indices = [op for op in opened.graph.operators.values() if op.type in BY_INDICES]
    pending = [operator.input(1) for operator in by_indices]
    found: set[str] = set()
    while pending:
        node = pending.pop()
        if node is None or node.value_name in found or node.dtype.startswith(("float", "bfloat")):
            continue
        found.add(node.value_name)
        if node.in_operator is not None and node.in_operator.type not in SHAPE_OPERATORS:
            pending.extend(node.in_operator.in_data)
    return found


class _Masker:
    def __init__(self, opened: OpenModel, result: CutResult) -> None:
        self.opened = opened
        self.result = result
        self.nodes: list[Any] = []
        versions = opened.model.opset_import
        self.opset = next((v.version for v in versions if v.domain in STANDARD_DOMAINS), 1)
        self.initializers: list[Any] = []
        self.by_output = {
            op.out_data[0].value_name: op for op in opened.graph.operators.values() if op.out_data
        }
        self.renamed: dict[str, str] = {}
        self.masked = opened.cuts.keys() - _read_as_indices(opened)

    def run(self) -> bytes:
        import onnx

        model = self.opened.model
        separate_equals(self.opened)
        by_value = {node.value_name: node for node in self.opened.graph.nodes.values()}
        for tensor in model.graph.initializer:
            if tensor.name in self.masked:
                value = zero_array(stored_array(tensor), self.opened.cuts[tensor.name])
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        self._count_kept_slices()
        self._mask_graph(model.graph, by_value)
        model.graph.initializer.extend(self.initializers)
        data: bytes = model.SerializeToString()
        return data

    def _mask_graph(self, graph: Any, by_value: Mapping[str, DataNode]) -> None:
        """Mask what the nodes of ``graph`` compute, and what the bodies in it do."""
        before, self.nodes = self.nodes, []
        is_body = graph is not self.opened.model.graph
        outputs = set() if is_body else {info.name for info in graph.output}
        for node in graph.node:
            for body in bodies_of(node) if is_flattened(node) else ():
                self._mask_graph(body, by_value)
            operator = next((self.by_output[o] for o in node.output if o in self.by_output), None)
            if operator is not None and operator.name in self.result.renormalises:
                self._wrap(node, operator)
            else:
                self._rename_inputs(node)
                self.nodes.append(node)
            for name in list(node.output):
                tensor_node = by_value.get(name)
                if name in self.masked and tensor_node is not None and name not in outputs:
                    self._mask(name, tensor_node)
        if is_body:
            for info in graph.output:
                info.name = self.renamed.get(info.name, info.name)
        nodes = [self._copy(node) for node in self.nodes]
        del graph.node[:]
        graph.node.extend(nodes)
        self.nodes = before

    def _count_kept_slices(self) -> None:
        """Let each variance over fewer slices count those that it is computed from."""
        after = computed_after(self.opened)
        for node in counts_of_statistics(self.opened.graph.operators.values()):
            value = None if after is None else after.known(node.value_name)
            if value is not None and node.value_name not in self.renamed:
                name = self._constant(self.opened.fresh(f"{node.value_name}#kept"), value)
                self.renamed[node.value_name] = name

    def _copy(self, node: Any) -> Any:
        copy = type(node)()
        copy.CopyFrom(node)
        return copy

    def _rename_inputs(self, node: Any) -> None:
        for position, name in enumerate(node.input):
            node.input[position] = self.renamed.get(name, name)

    def _constant(self, name: str, value: Any) -> str:
        import onnx

        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def _emit(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        import onnx

        self.nodes.append(onnx.helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def _mask(self, name: str, node: DataNode) -> None:
        """Put zeros in the listed slices; a selection, so that what was infinite becomes zero."""
        cuts = self.opened.cuts[name]
        shape = [1 if cut is None else size for cut, size in zip(cuts, node.shape, strict=True)]
        keep = zero_array(np.ones(shape, dtype=np.bool_), cuts)
        mask = self._constant(f"{name}#keep", keep)
        if node.dtype == "bool":
            self.renamed[name] = self._emit("And", [mask, name], f"{name}#masked")
            return
        if self.opset < SELECTS_SINCE:
            self._mask_by_product(name, node, keep)
            return
        # onnxruntime selects in these dtypes only; the others fit into one of them.
        selected = node.dtype
        if selected not in ("float32", "float64", "int32", "int64", "uint8"):
            selected = "int64" if "int" in selected else "float32"
        zero = self._constant(f"{name}#zero", np.zeros((), dtype=selected))
        source = self._cast(name, node.dtype, selected, f"{name}#as_{selected}")
        masked = self._emit("Where", [mask, source, zero], f"{name}#{selected}_masked")
        self.renamed[name] = self._cast(masked, selected, node.dtype, f"{name}#masked")

    def _mask_by_product(self, name: str, node: DataNode, keep: Any) -> None:
        """As :meth:`_mask`, in operator sets that cannot select: what was infinite is no number then."""
        working = node.dtype if node.dtype.startswith("float") else "float32"
        factor = self._constant(f"{name}#factor", keep.astype(np_dtype(working)))
        source = self._cast(name, node.dtype, working, f"{name}#as_{working}")
        masked = self._emit("Mul", [source, factor], f"{name}#{working}_masked")
        self.renamed[name] = self._cast(masked, working, node.dtype, f"{name}#masked")

    def _cast(self, value: str, dtype: str, wanted: str, output: str) -> str:
        import onnx

        if dtype == wanted:
            return value
        to = onnx.helper.np_dtype_to_tensor_dtype(np_dtype(wanted))
        return self._emit("Cast", [value], output, to=to)

    def _wrap(self, node: Any, operator: OperatorNode) -> None:
        """Run one operator on the kept slices of its inputs; scatter its outputs back."""
        nodes = {n.value_name: n for n in (*operator.in_data, *operator.out_data) if n is not None}
        for position, name in enumerate(node.input):
            if name in self.opened.cuts:
                node.input[position] = self._gather(
                    name, nodes[name], f"{node.output[0]}#in{position}"
                )
            else:
                node.input[position] = self.renamed.get(name, name)
        change = dict(self.result.operator.get(operator.name, {}))
        for key, value in new_constants(self.opened, operator, change).items():
            self._set(node, key, value)
        names = [name for name in node.output if name in self.opened.cuts]
        for position, name in enumerate(node.output):
            if name in names:
                node.output[position] = f"{name}#kept"
        self.nodes.append(self._copy(node))
        for name in names:
            self._scatter(f"{name}#kept", nodes[name], name)
        for position, name in enumerate(node.output):
            node.output[position] = name.removesuffix("#kept")

    def _set(self, node: Any, key: int | str, value: Any) -> None:
        import onnx

        if isinstance(key, int):
            while len(node.input) <= key:
                node.input.append("")
            node.input[key] = self._constant(self.opened.fresh(f"{node.output[0]}#{key}"), value)
            return
        kept = [a for a in node.attribute if a.name != key]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(key, np.asarray(value).tolist())])

    def _gather(self, name: str, node: DataNode, prefix: str) -> str:
        current = self.renamed.get(name, name)
        for dim, cut in enumerate(self.opened.cuts[name]):
            if cut is not None:
                kept = np.setdiff1d(np.arange(node.shape[dim]), cut)
                index = self._constant(f"{prefix}#{dim}i", kept)
                current = self._emit("Gather", [current, index], f"{prefix}#{dim}", axis=dim)
        return current

    def _scatter(self, kept_name: str, node: DataNode, name: str) -> None:
        """Put kept slices back at their places; the zeros come from one padded slice."""
        current = kept_name
        cuts = [(dim, cut) for dim, cut in enumerate(self.opened.cuts[name]) if cut is not None]
        zero = self._constant(f"{name}#pad", np.zeros((), dtype=np_dtype(node.dtype)))
        for number, (dim, cut) in enumerate(cuts):
            kept = np.setdiff1d(np.arange(node.shape[dim]), cut)
            pads = np.zeros(2 * node.rank, dtype=np.int64)
            pads[node.rank + dim] = 1
            if self.opset < PADS_BY_INPUT_SINCE:
                amounts = {"pads": pads.tolist()}
                padded = self._emit("Pad", [current], f"{name}#{dim}padded", **amounts)
            else:
                given = self._constant(f"{name}#{dim}pads", pads)
                padded = self._emit("Pad", [current, given, zero], f"{name}#{dim}padded")
            place = np.full(node.shape[dim], len(kept), dtype=np.int64)
            place[kept] = np.arange(len(kept))
            index = self._constant(f"{name}#{dim}place", place)
            last = number == len(cuts) - 1
            current = self._emit(
                "Gather", [padded, index], name if last else f"{name}#{dim}back", axis=dim
            )
