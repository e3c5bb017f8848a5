"""``ONNXGraph``: a model's static graph, by the manual's names."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torchpruner_core import running
from torchpruner_core.analysis.records import TERMINAL_KINDS
from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import TensorSpec
from torchpruner_core.errors import GraphError, InputSpecError, StaleStateWarning
from torchpruner_core.exporting import Dynamic, Program, export
from torchpruner_core.exporting.structures import arranged, specs_of, tensors_of_inputs
from torchpruner_core.graph.dtypes import np_dtype
from torchpruner_core.graph.modules import Module, fill_boundaries
from torchpruner_core.graph.named import Modules, Nodes, Operators
from torchpruner_core.graph.naming import self_name
from torchpruner_core.graph.nodes import DataNode
from torchpruner_core.importing.folding import Decision, apply_decisions
from torchpruner_core.importing.importer import ImportedGraph, graph_of, read_graph
from torchpruner_core.importing.parsing import parse
from torchpruner_core.importing.solving import solve_graph
from torchpruner_core.module_tree import every_path

if TYPE_CHECKING:
    from torchpruner_core.operators.base import OperatorNode

SHOWN = 8
"""So many names are spelled out in a warning."""


class ONNXGraph:
    """The static graph of a model: tensors, operators, and the modules they belong to.

    ``model`` is an ``nn.Module``, a TorchScript program, an ``ExportedProgram``, or the path or
    bytes of a TorchScript, ``.pt2`` or ONNX file. ``onnx_device`` is where values are computed,
    ``'CPU'`` or ``'GPU'``. Nothing is there before :meth:`build_graph`.
    """

    def __init__(self, model: Any, onnx_device: str = "CPU") -> None:
        self.model = model
        self.set_device(onnx_device)
        self.inputs: OrderedDict[str, DataNode] = OrderedDict()
        self.outputs: OrderedDict[str, DataNode] = OrderedDict()
        self.nodes: OrderedDict[str, DataNode] = Nodes()
        self.operators: OrderedDict[str, OperatorNode] = Operators()
        self._modules: OrderedDict[str, Module] | None = Modules()
        self._objects: Mapping[str, Any] = {}
        self._solved: SolvedGraph | None = None
        self._program: Program | None = None
        self._decided: tuple[Decision, ...] = ()

    def set_device(self, device: str) -> None:
        """Choose where values are computed, ``'CPU'`` or ``'GPU'``; raises ``GraphError`` else."""
        if device not in running.DEVICES:
            raise GraphError(f"the device is one of {', '.join(running.DEVICES)}, not {device!r}")
        self._device = device
        for operator in getattr(self, "operators", {}).values():
            operator.device = device

    def get_device(self) -> str:
        """Return where values are computed, ``'CPU'`` or ``'GPU'``."""
        return self._device

    def build_graph(
        self,
        inputs: Sequence[Any] | Mapping[str, Any] | None = None,
        fill_value: bool = True,
        training: bool = False,
        dynamic: Dynamic | None = None,
    ) -> ONNXGraph:
        """Build the graph for ``inputs`` and solve its coupling; returns the graph itself.

        ``inputs`` are example tensors (or ``TensorSpec`` shapes), in order or by name; an ONNX
        file with fixed shapes needs none. ``fill_value`` also runs the model once in onnxruntime,
        so that every node's ``data`` is filled. ``training`` exports in training mode. ``dynamic`` marks axes
        that ``graph.program`` keeps symbolic, as in :func:`~torchpruner_core.exporting.export_onnx`; the
        graph itself has the sizes of ``inputs``.

        Raises ``GraphError`` and its subclasses; a graph that was built before is kept then.
        """
        inputs = arranged(inputs)
        program = export(self.model, inputs, training=training, dynamic=dynamic)
        specs = specs_of(inputs) if dynamic or _takes_shapes(self.model) else None
        if program.parsed is not None and specs is None:
            imported = graph_of(*program.parsed)
        else:
            imported = read_graph(program.weightless(), specs)
        solved = solve_graph(imported)
        values = self._first_run(program, imported, inputs) if fill_value else None
        self._program, self._solved, self._decided = program, solved, imported.decided
        self._take_over(imported)
        if values is not None:
            self._fill(values)
        _tell_unread(self.unread, {self_name(path) for path in imported.origin.parameters})
        return self

    def forward(self, inputs: Sequence[Any] | Mapping[str, Any]) -> tuple[Any, ...]:
        """Run the graph on ``inputs`` and keep every value in its node's ``data``.

        Returns the outputs as numpy arrays, in order.
        """
        program, _ = self._built()
        self._fill(
            self._run_on(program, list(self.inputs.values()), arranged(inputs), self._decided)
        )
        return tuple(node.data for node in self.outputs.values())

    def flops(self) -> float:
        """Return the millions of FLOPs of one forward pass, batch included.

        Counted as ``torch.utils.flop_counter`` does: two a multiply-accumulate of convolutions,
        matrix products and attention; nothing else counts.
        """
        return self.solved.flops() / 1e6

    def macs(self) -> float:
        """Return the millions of multiply-accumulates of one forward pass: half of ``flops()``."""
        return self.solved.macs() / 1e6

    @property
    def unread(self) -> tuple[str, ...]:
        """The model's parameters and buffers that the graph never reads; see ``GraphData.unread``."""
        return self.solved.unread

    @property
    def solved(self) -> SolvedGraph:
        """The solved graph, which answers every cut analysis; raises ``GraphError`` before a build."""
        return self._built()[1]

    @property
    def program(self) -> Program:
        """The model as ONNX, with or without weights; raises ``GraphError`` before a build."""
        return self._built()[0]

    @property
    def node(self) -> OrderedDict[str, DataNode]:
        """The same as ``nodes``: the manual writes ``graph.node['self.conv1.weight']``."""
        return self.nodes

    def _built(self) -> tuple[Program, SolvedGraph]:
        if self._program is None or self._solved is None:
            raise GraphError("the graph is empty; call build_graph(inputs) first")
        return self._program, self._solved

    def _take_over(self, imported: ImportedGraph) -> None:
        self.nodes = Nodes(imported.nodes)
        self.operators = Operators(imported.operators)
        self.inputs = OrderedDict((node.name, node) for node in imported.inputs)
        self.outputs = OrderedDict((node.name, node) for node in imported.outputs)
        objects = _torch_objects(self.model)
        read = _Stored(self._built()[0], objects).read
        for node in imported.nodes.values():
            node.graph = self
            if node.kind in TERMINAL_KINDS:
                node.stored = read
        for operator in self.operators.values():
            operator.device = self._device
        self._objects, self._modules = objects, None

    @property
    def modules(self) -> OrderedDict[str, Module]:
        """The modules by name, in the model's order, and after them parameters and buffers.

        They are made when they are first asked for: many questions need none of them.
        """
        if self._modules is None:
            self._modules = self._make_modules(self._objects)
        return self._modules

    def _make_modules(self, objects: Mapping[str, Any]) -> OrderedDict[str, Module]:
        modules: OrderedDict[str, Module] = Modules()
        for name in [*(self_name(path) for path in objects), *self.solved.modules]:
            if name not in modules:
                modules[name] = Module(name, self, objects.get(name.partition(".")[2]))
        for name, module in modules.items():
            parent, _, attribute = name.rpartition(".")
            if parent in modules:
                modules[parent].sub_modules[attribute] = module
            module.terminal_node = self.nodes.get(name)
        for operator in self.operators.values():
            if operator.is_constant:
                continue
            owner: str | None = self_name(operator.module)
            while owner:
                modules[owner].operators.append(operator)
                owner = owner.rpartition(".")[0]
        for module in modules.values():
            fill_boundaries(module)
        return modules

    def _first_run(self, program: Program, imported: ImportedGraph, inputs: Any) -> dict[str, Any]:
        try:
            return self._run_on(program, imported.inputs, inputs, imported.decided)
        except GraphError as error:
            raise type(error)(
                f"{error.detail}; build_graph(inputs, fill_value=False) builds the graph without "
                "running it, and every analysis works on that",
                **error.fields,
            ) from error

    def _run_on(
        self,
        program: Program,
        nodes: Sequence[DataNode],
        inputs: Any,
        decided: tuple[Decision, ...],
    ) -> dict[str, Any]:
        import onnx

        model = parse(program.with_weights())
        apply_decisions(model, decided)
        feeds = _feeds(nodes, inputs)
        values = running.run_all(model, feeds, self._device)
        values.update(feeds)
        for tensor in model.graph.initializer:
            values[tensor.name] = onnx.numpy_helper.to_array(tensor)
        for node in model.graph.node:
            if node.op_type == "Constant":
                values.setdefault(node.output[0], None)
        return values

    def _fill(self, values: Mapping[str, Any]) -> None:
        for node in self.nodes.values():
            if values.get(node.value_name) is not None:
                node.data = values[node.value_name]


def _tell_unread(unread: Sequence[str], parameters: set[str]) -> None:
    never = [name for name in unread if name in parameters]
    if never:
        more = f" and {len(never) - SHOWN} more" if len(never) > SHOWN else ""
        warnings.warn(
            f"the graph never reads {', '.join(never[:SHOWN])}{more}: parameters of a part that did not "
            "run, such as auxiliary heads or mask tokens. set_cut follows those that a run in training "
            "mode reads, and names the others; graph.unread lists all",
            StaleStateWarning,
            stacklevel=3,
        )


def _feeds(nodes: Sequence[DataNode], inputs: Any) -> dict[str, Any]:
    import numpy as np

    if inputs is None:
        inputs = [TensorSpec(node.name, node.shape, node.dtype) for node in nodes]
    given = tensors_of_inputs(inputs)
    if isinstance(given, Mapping):
        # A nested argument whose container has no names of its own is matched by its place.
        by_name = all(node.name in given for node in nodes)
        values = [given[node.name] for node in nodes] if by_name else list(given.values())
    else:
        values = given
    if len(values) != len(nodes):
        numbers = _numbers(inputs)
        values = numbers if len(numbers) == len(nodes) else values
    if len(values) != len(nodes):
        names = ", ".join(node.name for node in nodes)
        raise InputSpecError(
            f"the graph takes {len(nodes)} inputs ({names}), {len(values)} were given"
        )
    feeds = {}
    for node, value in zip(nodes, values, strict=True):
        if isinstance(value, TensorSpec):
            dtype = np_dtype(value.dtype)
            fixed = np.zeros(value.shape, dtype) if value.value is None else np.array(value.value)
            feeds[node.value_name] = fixed.astype(dtype).reshape(value.shape)
        else:
            feeds[node.value_name] = _array(value, node.dtype)
    return feeds


class _Stored:
    """The contents of stored tensors: a module's own, or those of the program's file."""

    def __init__(self, program: Program, tensors: Mapping[str, Any]) -> None:
        self._program = program
        self._tensors = tensors

    def read(self, node: DataNode) -> Any:
        """Return a node's contents as a numpy array; ``None`` where they are not to be had (meta)."""
        tensor = self._tensors.get(node.name.partition(".")[2])
        if tensor is not None and hasattr(tensor, "detach"):
            if hasattr(tensor, "full_tensor"):  # a piece of it is here, of a sharded model
                tensor = tensor.full_tensor()
            if tensor.is_complex():
                tensor = _pairs(tensor)
            fits = not tensor.is_meta and tuple(tensor.shape) == node.shape
            return _array(tensor, node.dtype).copy() if fits else None
        return self._of_file.get(node.value_name)

    @cached_property
    def _of_file(self) -> dict[str, Any]:
        import onnx

        try:
            graph = onnx.load_model_from_string(self._program.with_weights()).graph
        except GraphError:
            return {}
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        tensors |= {
            node.output[0]: attribute.t
            for node in graph.node
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }
        return {name: onnx.numpy_helper.to_array(tensor) for name, tensor in tensors.items()}


def _numbers(inputs: Any) -> list[Any]:
    """Return the arguments that a traced program may take as inputs: numbers are tensors there."""
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    return [value for value in values if hasattr(value, "shape") or isinstance(value, (int, float))]


def _array(value: Any, dtype: str) -> Any:
    import numpy as np

    if not hasattr(value, "detach"):
        return np.asarray(value, dtype=None if hasattr(value, "dtype") else np_dtype(dtype))
    tensor = value.detach().cpu()
    if tensor.is_complex():
        tensor = _pairs(tensor)
    if str(tensor.dtype) == "torch.bfloat16":  # torch converts no other dtype to ml_dtypes' own
        return tensor.float().numpy().astype(np_dtype("bfloat16"))
    return tensor.numpy()


def _pairs(tensor: Any) -> Any:
    """Return complex numbers as a program has them: pairs of real ones along a last axis."""
    import torch

    return torch.view_as_real(tensor.detach().resolve_conj())


def _takes_shapes(model: Any) -> bool:
    """Whether the inputs' shapes are not in the program already: true of a file, false of a trace."""
    return not (hasattr(model, "named_modules") and hasattr(model, "forward"))


def _torch_objects(model: Any) -> dict[str, Any]:
    """Return a module's submodules, parameters and buffers by dotted path; nothing for a file."""
    if not hasattr(model, "named_modules"):
        return {}
    parameters: dict[str, Any] = {}
    buffers: dict[str, Any] = {}
    modules: dict[str, Any] = {}
    seen: set[int] = set()
    for path, module in every_path(model):
        if id(module) not in seen:
            seen.add(id(module))
            modules[path] = module
        prefix = f"{path}." if path else ""
        for own, found in ((module._parameters, parameters), (module._buffers, buffers)):
            found.update((prefix + name, each) for name, each in own.items() if each is not None)
    return {**modules, **parameters, **buffers}
