"""A ``torch.export`` program under the recorder: it holds the ATen calls that a run would make.

Its graph is run node by node on tensors whose memory is never touched, so that both kinds of program
take the same way from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils._pytree import tree_unflatten

from torchpruner_core.capture.errors import CaptureError, ValuesNeeded
from torchpruner_core.capture.recorder import Recorder
from torchpruner_core.capture.registry import is_translated
from torchpruner_core.capture.tape import Kind, Tape

_KINDS: dict[InputKind, Kind] = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "constant",
}
_INLINED = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


def record_exported(
    program: torch.export.ExportedProgram, outputs_of: Callable[[Any], Mapping[str, Any]]
) -> Tape:
    """Return what a run of ``program`` does; raises ``CaptureError`` where it cannot be recorded."""
    tape = Tape()
    recorder = Recorder(tape, is_translated, lambda tensor: ("", "constant"))
    values = [_placeholder(program, spec, recorder) for spec in program.graph_signature.input_specs]
    try:
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd(), recorder:
            results = _Nodes(program.graph_module, recorder).run(*values)
    except ValuesNeeded as asked:
        raise CaptureError(f"the program reads the value of a tensor ({asked})") from None
    finally:
        recorder.restore()
    specs = program.graph_signature.output_specs
    given = [
        result
        for spec, result in zip(specs, results, strict=True)
        if spec.kind is OutputKind.USER_OUTPUT
    ]
    result = tree_unflatten(given, program.call_spec.out_spec)
    tape.outputs = {name: recorder.value(tensor) for name, tensor in outputs_of(result).items()}
    if not tape.outputs:
        raise CaptureError("the program returns no tensor")
    return tape


def _placeholder(program: torch.export.ExportedProgram, spec: Any, recorder: Recorder) -> Any:
    tape = recorder.tape
    kind = _KINDS.get(spec.kind)
    if kind is not None:
        held = program.state_dict if spec.target in program.state_dict else program.constants
        tensor = held[spec.target]
        if any(tensor is other for other in tape.stored.values()):
            tensor = tensor.detach()  # one tensor under two names
        value = recorder.own(tensor, kind, spec.target)
        tape.values[spec.target] = value
        tape.stored[spec.target] = tensor
        return tensor
    if spec.kind is not InputKind.USER_INPUT:
        raise CaptureError(f"the program takes {spec.kind.name.lower()} inputs")
    if isinstance(spec.arg, ConstantArgument):
        return spec.arg.value
    fake = _value_of(program, spec.arg.name)
    if not all(isinstance(size, int) for size in fake.shape):
        raise CaptureError("the program leaves sizes open")
    device = "meta" if any(t.is_meta for t in tape.stored.values()) else "cpu"
    tensor = torch.zeros(fake.shape, dtype=fake.dtype, device=device)
    tape.inputs.append(recorder.own(tensor, "input", spec.arg.name))
    return tensor


def _value_of(program: torch.export.ExportedProgram, name: str) -> torch.Tensor:
    node = next(node for node in program.graph.nodes if node.name == name)
    value: torch.Tensor = node.meta["val"]
    return value


class _Nodes(torch.fx.Interpreter):
    """Runs a graph; tells the recorder in which module each node was."""

    def __init__(self, module: torch.fx.GraphModule, recorder: Recorder) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.recorder = recorder

    def run_node(self, n: torch.fx.Node) -> Any:
        stack = n.meta.get("nn_module_stack")
        if stack:
            self.recorder.module = str(list(stack.values())[-1][0])
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(target, torch._ops.HigherOrderOperator):
            name = target.name()
            if name not in _INLINED:
                raise CaptureError(f"the program holds the control flow {name}")
            at = next(k for k, arg in enumerate(args) if isinstance(arg, torch.fx.GraphModule))
            return _Nodes(args[at], self.recorder).run(*args[at + 1 :])
        return super().call_function(target, args, kwargs)
