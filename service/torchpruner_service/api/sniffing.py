"""Which kind of model an uploaded file holds, told from its content before any loader sees it."""

from __future__ import annotations

import mmap
import zipfile
from pathlib import Path

from torchpruner_core.errors import InvalidModelError
from torchpruner_core.importing.archives import model_in
from torchpruner_core.importing.wire import holds_graph, tensor_headers
from torchpruner_service.problems import InvalidUpload

MAX_DEPTH = 100
"""Folders in each other; modules nest in names, and seldom ten deep."""
MAX_ENTRIES = 200_000
MAX_RATIO = 200
"""Unpacked to packed: PyTorch's archives are stored, not compressed."""


def sniff_file(path: Path, max_unpacked: int) -> str:
    """Return ``onnx``, ``torchscript`` or ``pt2``. Raises ``InvalidUpload`` for anything else."""
    size = path.stat().st_size
    if size == 0:
        raise InvalidUpload("the body is empty; send the model file as the request's body")
    with path.open("rb") as file:
        head = file.read(4)
        if head == b"PK\x03\x04":
            return _sniff_zip(path, size, max_unpacked)
        if head[:1] == b"\x80" or head[:2] == b"PK":
            raise InvalidUpload(
                "the file is a bare pickle or a damaged archive, not a program; save the "
                "model with "
                "torch.jit.trace(...).save(path), torch.export.save or torch.onnx.export",
                slug="unsupported-model",
            )
        # Not closed by hand: an error's traceback may still hold a view into it.
        return _sniff_onnx(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _sniff_onnx(view: mmap.mmap) -> str:
    data = memoryview(view)
    try:
        if not holds_graph(data):
            raise InvalidUpload(
                "the file is not a model, or it is truncated: neither an ONNX file, nor a "
                "TorchScript "
                "or torch.export archive"
            )
        for header in tensor_headers(data):
            if header.external:
                raise InvalidUpload(
                    f"initializer {header.name!r} keeps its data in another file, which was not "
                    "uploaded; send a zip of the model and its data files, save the model in one file, or "
                    "leave out its weights",
                    slug="external-data",
                    initializer=header.name[:200],
                )
            if any(size < 0 or size >= 2**62 for size in header.dims):
                raise InvalidUpload(
                    f"initializer {header.name!r} declares impossible dimensions",
                    initializer=header.name[:200],
                )
    except (InvalidModelError, IndexError, RecursionError) as error:
        raise InvalidUpload(f"the ONNX file is damaged: {error}") from error
    return "onnx"


def _sniff_zip(path: Path, size: int, max_unpacked: int) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise InvalidUpload(
            f"the archive is damaged or truncated ({error}); upload it again",
            slug="damaged-archive",
        ) from error
    unpacked = sum(entry.file_size for entry in entries)
    if (
        len(entries) > MAX_ENTRIES
        or unpacked > max_unpacked
        or unpacked > MAX_RATIO * size + (1 << 20)
    ):
        raise InvalidUpload(
            f"the archive unpacks {size} bytes into {unpacked} in {len(entries)} entries, "
            f"more than "
            "this service reads",
            slug="archive-too-large",
            unpacked=unpacked,
        )
    names = [f"/{entry.filename}" for entry in entries]
    deepest = max((name.count("/") for name in names), default=0)
    if deepest > MAX_DEPTH:
        raise InvalidUpload(
            f"the archive has {deepest} folders in each other, more than this service reads; save the "
            "model anew",
            slug="archive-too-deep",
            depth=deepest,
        )
    if any(
        name.endswith(("/archive_format", "/serialized_exported_program.json")) for name in names
    ):
        return "pt2"
    if any("/models/" in name and name.endswith(".json") for name in names):
        return "pt2"
    if any("/code/" in name for name in names):
        return "torchscript"
    if model_in([entry.filename for entry in entries]) is not None:
        return "onnx"
    raise InvalidUpload(
        "the archive holds no program: a state_dict or a pickled module cannot be analysed; "
        "save the "
        "model with torch.jit.trace(...).save(path), torch.export.save or torch.onnx.export",
        slug="unsupported-model",
    )
