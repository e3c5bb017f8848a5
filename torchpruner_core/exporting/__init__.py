"""The entrances: an ``nn.Module``, a TorchScript program, a ``torch.export`` archive, an ONNX file.

Each becomes one ONNX model with parameters under their own names. What ONNX cannot say (which
names share storage, which are buffers, the class of each module) travels in the model's metadata.

Loading TorchScript or ``.pt2`` runs code from the file: the service does it in a sandbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchpruner_core.errors import ExportError
from torchpruner_core.exporting.dynamic_axes import NO_DYNAMIC, Dynamic
from torchpruner_core.exporting.program import Program
from torchpruner_core.exporting.structures import Inputs
from torchpruner_core.importing.external_data import unpacked
from torchpruner_core.importing.formats import ModelFormat, read_model, sniff

__all__ = ["Dynamic", "ModelFormat", "Program", "export", "export_onnx", "read_model", "sniff"]


def export_onnx(
    model: Any,
    inputs: Inputs | None = None,
    *,
    weights: bool = True,
    dynamic: Dynamic | None = None,
) -> bytes:
    """Return ``model`` as an ONNX file's bytes.

    ``model`` is an ``nn.Module``, a ``ScriptModule``, an ``ExportedProgram``, or the path or bytes
    of a TorchScript, ``.pt2`` or ONNX file. ``inputs`` are example tensors or
    :class:`~torchpruner_core.cut_result.TensorSpec`, in order or by name. With ``weights=False``
    large tensors keep their shape and lose their data, and a model on the ``meta`` device works.

    ``dynamic`` marks axes of an ``nn.Module``'s inputs that stay symbolic (``dim_param``), by the input's
    name or position: ``{'ids': {0: 'batch', 1: 'sequence'}}``, or ``{0: [0]}`` without names of one's own.
    Inputs given in order have positions, those given by name have names. Such a model goes through
    ``torch.export``; axes that it needs to be equal get the first one's name, and an axis that its code
    fixes raises ``ExportError``. Analyse the file at the example's sizes
    (``solve_onnx(data, inputs)``); ``prune_onnx`` keeps its symbols.

    Raises ``ExportError``, ``InvalidModelError``, ``InputSpecError`` or ``UnsupportedModelError``.
    """
    program = export(model, inputs, dynamic=dynamic)
    return program.with_weights() if weights else program.weightless()


def export(
    model: Any,
    inputs: Inputs | None = None,
    *,
    training: bool = False,
    entrances: Sequence[str] | None = None,
    dynamic: Dynamic | None = None,
) -> Program:
    """Return ``model`` as a :class:`Program`; arguments and errors as for :func:`export_onnx`.

    ``training`` exports an ``nn.Module`` in training mode; its mode is put back afterwards.
    ``entrances`` are the ways to try for it, in order; by default ``'capture'``, ``'torch.export'``,
    ``'TorchScript'``.
    """
    if dynamic and isinstance(model, Program | str | Path | bytes | bytearray | memoryview):
        raise ExportError(NO_DYNAMIC)
    if isinstance(model, Program):
        return model
    if isinstance(model, str | Path):
        model = read_model(Path(model))
    if isinstance(model, bytes | bytearray | memoryview):
        return _export_file(bytes(model), inputs)
    if dynamic and type(model).__module__.partition(".")[0] == "onnx":
        raise ExportError(NO_DYNAMIC)
    if type(model).__module__.partition(".")[0] == "onnx" and hasattr(model, "SerializeToString"):
        return Program.from_bytes(model.SerializeToString())
    from torchpruner_core.exporting import torch_programs

    return torch_programs.export_object(
        model, inputs, training, entrances or torch_programs.ENTRANCES, dynamic
    )


def _export_file(data: bytes, inputs: Inputs | None) -> Program:
    kind = sniff(data)
    if kind == "onnx":
        return Program.from_bytes(unpacked(data))
    from torchpruner_core.exporting import torch_programs

    return torch_programs.export_file(data, kind, inputs)
