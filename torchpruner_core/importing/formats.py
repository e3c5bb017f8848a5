"""Which kind of model a file holds, told from its content and never from its name."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Literal

from torchpruner_core.errors import InvalidModelError, UnsupportedModelError
from torchpruner_core.importing.archives import model_in
from torchpruner_core.importing.external_data import unpacked

ModelFormat = Literal["onnx", "torchscript", "pt2"]

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"


def sniff(data: bytes) -> ModelFormat:
    """Return the format of a model file.

    Raises ``InvalidModelError`` for what is no model or cut short, and ``UnsupportedModelError``
    for a ``state_dict`` or pickled module, which hold no program to analyse.
    """
    if not data:
        raise InvalidModelError("the file is empty")
    if data[:4] == _ZIP:
        return _sniff_zip(data)
    if data[:1] == _PICKLE:
        raise UnsupportedModelError(
            "the file is a bare pickle, not a program; save the model with torch.jit.trace(...)"
            ".save(path), torch.export.save or torch.onnx.export"
        )
    from torchpruner_core.importing.wire import holds_graph

    if holds_graph(data):
        return "onnx"
    raise InvalidModelError(
        "the file is not a model: neither an ONNX file, nor a TorchScript or torch.export archive"
    )


def _sniff_zip(data: bytes) -> ModelFormat:
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except zipfile.BadZipFile as error:
        raise InvalidModelError(
            f"the file starts like a zip archive and is damaged or truncated: {error}"
        ) from error
    if any(
        name.endswith(("archive_format", "serialized_exported_program.json")) for name in names
    ) or any("/models/" in f"/{name}" and name.endswith(".json") for name in names):
        return "pt2"
    if any("/code/" in f"/{name}" for name in names):
        return "torchscript"
    if model_in(names) is not None:
        return "onnx"
    raise UnsupportedModelError(
        "the archive holds no program: a state_dict or a pickled module cannot be analysed; "
        "save the model with torch.jit.trace(...).save(path), torch.export.save or torch.onnx.export"
    )


def read_model(path: Path, *, weights: bool = True) -> bytes:
    """Return a model file's bytes; an ONNX model in several files, or a zip of them, as one.

    Without ``weights`` such a model's large tensors are left out. Raises ``InvalidModelError`` where it
    cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
        if head == _ZIP or path.suffix.lower() == ".onnx":
            return unpacked(path, weights=weights)
        return path.read_bytes()
    except OSError as error:
        raise InvalidModelError(f"{path} cannot be read: {error.strerror or error}") from error
