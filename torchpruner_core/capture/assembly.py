"""From a tape to an ONNX model: what the outputs need, translated call by call.

The model's tensors become initializers under their own names, without their data; :meth:`Captured.whole`
adds the data from the tensors themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from torchpruner_core.capture import translations  # noqa: F401  (imported to register)
from torchpruner_core.capture.errors import CaptureError
from torchpruner_core.capture.registry import Translation, translation
from torchpruner_core.capture.tape import Call, Frozen, Tape, Value
from torchpruner_core.capture.translations.complex_numbers import complex_translation, is_complex
from torchpruner_core.capture.writer import Type, Writer, raw_bytes, stored_type
from torchpruner_core.graph.origin import Origin
from torchpruner_core.graph.written import (
    OperatorSet,
    WrittenGraph,
    WrittenModel,
    WrittenNode,
    WrittenTensor,
    WrittenValue,
)
from torchpruner_core.importing.wire import KEEP_FLOAT_BYTES, KEEP_INTEGER_BYTES

IR_VERSIONS = {20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13, 26: 13}
"""The file format that each operator set came with."""

PROTOBUF_LIMIT = 2**31 - 2**20


@dataclass(slots=True)
class Captured:
    """A captured program: ``model`` without the weights' data, and every value's shape and dtype.

    ``opaque`` names operators that nobody translates; they stand in the program under their own name.
    """

    model: WrittenModel
    types: dict[str, Type]
    stored: dict[str, torch.Tensor]
    frozen: tuple[Frozen, ...] = ()
    opaque: tuple[str, ...] = ()
    _light: bytes = field(default=b"", repr=False)

    def light(self) -> bytes:
        """Return the model's bytes without its large tensors' data."""
        if not self._light:
            self._light = self.model.proto.SerializeToString()
        return self._light

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.stored.values())

    @property
    def on_meta(self) -> bool:
        return any(tensor.is_meta for tensor in self.stored.values())

    def whole(self) -> bytes:
        """Return the model's bytes with all data, read from the module's tensors as they are now.

        Raises ``CaptureError`` where a tensor has another shape than when it was captured.
        """
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.model.proto)
        for initializer in model.graph.initializer:
            tensor = self.stored.get(initializer.name)
            if tensor is None:
                continue
            if stored_type(tensor.shape, tensor.dtype)[0] != tuple(initializer.dims):
                raise CaptureError(
                    f"{initializer.name} has the shape {list(tensor.shape)} now, and had "
                    f"{list(initializer.dims)} when the model was captured: build the graph again"
                )
            initializer.raw_data = raw_bytes(tensor)
        data: bytes = model.SerializeToString()
        return data


def assemble(tape: Tape, origin: Origin) -> Captured:
    """Translate a tape; raises ``CaptureError`` where a call has no meaning in ONNX."""
    model = WrittenModel(origin)
    graph = model.graph
    outputs = _unique(tape)
    writer = Writer(graph, [*tape.stored, *(v.name for v in tape.inputs), *outputs])
    for value in tape.inputs:
        graph.input.append(_declared(value.name, value))
        writer.bind(value, value.name)
    for name, tensor in tape.stored.items():
        shape, element, kind = stored_type(tensor.shape, tensor.dtype)
        raw = raw_bytes(tensor) if _keeps_data(tensor) else b""
        graph.initializer.append(WrittenTensor(name, shape, element, kind, raw))
        writer.types[name] = shape, kind
    for name, value in tape.values.items():
        if name not in tape.stored:  # made in the run: data as it is now
            continue
        writer.bind(value, name)
    wanted: dict[int, str] = {}
    for name, value in outputs.items():
        if value.kind == "computed" and not value.fixed:
            wanted.setdefault(id(value), name)
    opaque: dict[str, None] = {}
    calls = _live(tape)
    complex_ = _holds_complex(tape, calls)
    for call in calls:
        rule = (
            complex_translation(call)
            if complex_ and is_complex(call)
            else translation(call.name, call.overload)
        )
        _translate(writer, call, rule, wanted, opaque)
    for name, value in outputs.items():
        if writer.name(value) != name:
            graph.node.append(WrittenNode("Identity", [writer.name(value)], [name], {}))
            shape, _, kind = stored_type(value.shape, value.dtype)
            writer.types[name] = shape, kind
        graph.output.append(_declared(name, value))
    _drop_unused(graph)
    model.opset_import.append(OperatorSet("", writer.opset))
    model.opset_import += [OperatorSet(domain, 1) for domain in sorted(writer.domains)]
    model.ir_version = IR_VERSIONS[writer.opset]
    return Captured(model, writer.types, tape.stored, tuple(tape.frozen), tuple(opaque))


def _unique(tape: Tape) -> dict[str, Value]:
    """Return the outputs under names that nothing else has."""
    taken = {*tape.stored, *(value.name for value in tape.inputs)}
    found: dict[str, Value] = {}
    for name, value in tape.outputs.items():
        candidate, count = name, 0
        while candidate in taken:
            count += 1
            candidate = f"{name}_{count}"
        taken.add(candidate)
        found[candidate] = value
    return found


def _declared(name: str, value: Value) -> WrittenValue:
    sizes, element, _ = stored_type(value.shape, value.dtype)
    return WrittenValue(name, sizes, element)


def _keeps_data(tensor: torch.Tensor) -> bool:
    """Return whether a stored tensor is small: shapes may be computed from it."""
    floats = tensor.dtype.is_floating_point or tensor.dtype.is_complex
    limit = KEEP_FLOAT_BYTES if floats else KEEP_INTEGER_BYTES
    return tensor.nbytes <= limit and not tensor.is_meta


def _live(tape: Tape) -> list[Call]:
    """Return the calls that the outputs need, in order."""
    needed = {id(value) for value in tape.outputs.values()}
    found = []
    for call in reversed(tape.calls):
        if not any(id(value) in needed for value in call.outputs):
            continue
        found.append(call)
        needed.update(id(value) for value in call.reads())
    return found[::-1]


def _drop_unused(graph: WrittenGraph) -> None:
    """Remove what a translation computed and nothing reads: a recurrent layer's last states."""
    read = {info.name for info in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not read.isdisjoint(node.output):
            read.update(node.input)
            kept.append(node)
    graph.node = kept[::-1]


def _holds_complex(tape: Tape, calls: list[Call]) -> bool:
    """Return whether any value is complex: most models have none, and are not asked call by call."""
    values = [*tape.inputs, *tape.values.values()]
    return any(value.dtype.is_complex for value in values) or any(
        value.dtype.is_complex for call in calls for value in call.outputs
    )


def _translate(
    writer: Writer,
    call: Call,
    rule: Translation | None,
    wanted: dict[int, str],
    opaque: dict[str, None],
) -> None:
    writer.module = call.module
    names: Any = None
    if rule is not None:
        try:
            names = rule(writer, call, *call.args, **call.kwargs)
        except CaptureError:
            raise
        except Exception as error:
            where = f"self.{call.module}" if call.module else "self"
            raise CaptureError(
                f"the translation of {call.name}.{call.overload} failed in {where}: {error!r}"
            ) from error
    if names is None:
        names = _opaque(writer, call)
        opaque[call.name] = None
    writer.finish(call, names, wanted)


def _opaque(writer: Writer, call: Call) -> list[str]:
    """Write an operator that nobody translates, in a domain of its library's name."""
    domain, _, name = call.name.partition("::")
    settings: dict[str, Any] = {}
    for k, arg in enumerate([*call.args, *call.kwargs.values()]):
        if isinstance(arg, (bool, int, float, str)):
            settings[f"argument_{k}"] = arg
    types = [(value.shape, value.dtype) for value in call.outputs]
    return writer.ops(
        name, *call.reads(), outputs=len(types), domain=f"torch.{domain}", types=types, **settings
    )
