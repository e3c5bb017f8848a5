"""A captured module as a :class:`~torchpruner_core.exporting.program.Program`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from torchpruner_core.capture.assembly import PROTOBUF_LIMIT, Captured, assemble
from torchpruner_core.capture.exported import record_exported
from torchpruner_core.capture.run import record
from torchpruner_core.errors import ExportError
from torchpruner_core.exporting.program import Entrance, Program
from torchpruner_core.exporting.structures import named_outputs, tensors_of_inputs
from torchpruner_core.graph.origin import Origin

TOO_LARGE = (
    "the model is larger than the 2 GB a single ONNX file can hold; ask for the weightless form, "
    "which is enough for analysis"
)
ON_META = "the model's weights are on the meta device, so only a weightless analysis works"


def capture(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    origin: Origin,
) -> Program:
    """Run ``model`` once under the recorder; raises ``ExportError`` where that gives no program."""
    names = _argument_names(model, len(args))

    def inputs_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        given = tensors_of_inputs({**dict(zip(names, args, strict=True)), **kwargs})
        assert isinstance(given, Mapping)
        return {_free(name, model): tensor for name, tensor in given.items()}

    tape = record(model, args, kwargs, inputs_of=inputs_of, outputs_of=named_outputs)
    return program_of(assemble(tape, origin))


def capture_exported(program: torch.export.ExportedProgram, origin: Origin) -> Program:
    """Translate a ``torch.export`` program; raises ``ExportError`` where that gives no program."""
    return program_of(assemble(record_exported(program, named_outputs), origin))


def program_of(captured: Captured) -> Program:
    """Return a captured model as a program."""

    def with_weights() -> bytes:
        if captured.on_meta:
            raise ExportError(ON_META)
        if captured.nbytes > PROTOBUF_LIMIT:
            raise ExportError(TOO_LARGE)
        return captured.whole()

    return Program(
        weightless=captured.light,
        with_weights=with_weights,
        entrance=Entrance("capture"),
        frozen=captured.frozen,
        opaque=captured.opaque,
        parsed=(captured.model, captured.types),
    )


def _argument_names(model: nn.Module, count: int) -> list[str]:
    """Return the names of ``forward``'s first arguments; those under a star are numbered."""
    names: list[str] = []
    for parameter in inspect.signature(model.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{k}" for k in range(count - len(names))]
        elif (
            parameter.kind is not parameter.KEYWORD_ONLY
            and parameter.kind is not parameter.VAR_KEYWORD
        ):
            names.append(parameter.name)
    names += [f"input_{k}" for k in range(len(names), count)]
    return names[:count]


def _free(name: str, model: nn.Module) -> str:
    """Return an input's name that no parameter has."""
    held = getattr(model, name, None) if "." not in name else None
    return f"{name}_input" if isinstance(held, torch.Tensor) else name
