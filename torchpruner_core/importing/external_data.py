"""ONNX models in several files: the program, and files beside it that hold its large tensors.

They come as a path whose data files lie beside it, or as one zip archive of all of them, which is how
a model of more than 2 GB is one upload. Names of data files come from the model: none may lead out of
its folder or archive, and no tensor may be longer than its file or shorter than its shape.
Source: https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from torchpruner_core.errors import InvalidModelError, UnsupportedModelError
from torchpruner_core.importing.archives import is_archive, model_in
from torchpruner_core.importing.bodies import all_graphs
from torchpruner_core.importing.wire import KEEP_FLOAT_BYTES, KEEP_INTEGER_BYTES, tensor_headers

if TYPE_CHECKING:
    import onnx

ONE_FILE = 2_000_000_000
"""Bytes that one ONNX message holds: protocol buffers end at 2 GiB."""

_INTEGERS = frozenset({2, 3, 4, 5, 6, 7, 9, 12, 13})

Opener = Callable[[str], IO[bytes]]
"""Opens a data file by the name that the model says."""


def has_external_data(data: bytes) -> bool:
    """Return whether a tensor of the main graph is stored in another file."""
    return any(header.external for header in tensor_headers(data))


def unpacked(source: bytes | Path, *, weights: bool = True) -> bytes:
    """Return the ONNX model in a zip archive, or in a file whose data files lie beside it, as one message.

    Without ``weights`` only the small tensors that shapes are computed from are read, so that a model of
    any size can be analysed. Bytes and files that are a whole model already are returned as they are.
    Raises ``InvalidModelError`` where parts are missing or lead elsewhere, ``UnsupportedModelError`` where
    the whole is larger than one message.
    """
    with opened_parts(source) as parts:
        if parts is None:
            return source.read_bytes() if isinstance(source, Path) else source
        data, opener = parts
        return _joined(data, opener, weights) if has_external_data(data) else data


@contextmanager
def opened_parts(source: bytes | Path) -> Iterator[tuple[bytes, Opener] | None]:
    """Open a model in several files: its program, and what opens the files that hold its tensors.

    ``None`` where ``source`` is bytes of a whole model, or an archive of something else. Raises
    ``InvalidModelError`` as :func:`unpacked` does.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            if is_archive(file.read(4)):
                file.seek(0)
                with _archive(file) as parts:
                    yield parts
                return
        yield source.read_bytes(), _beside(source.parent)
    elif is_archive(source):
        with _archive(io.BytesIO(source)) as parts:
            yield parts
    else:
        yield None


@contextmanager
def _archive(file: IO[bytes]) -> Iterator[tuple[bytes, Opener] | None]:
    """Open the model in an archive; ``None`` where it holds no ONNX file, or several."""
    with _reading("the archive"), zipfile.ZipFile(file) as archive:
        name = model_in(archive.namelist())
        members = {info.filename: info for info in archive.infolist()}
        if name is not None:
            if any(info.flag_bits & 1 for info in members.values()):
                raise InvalidModelError("the archive is encrypted; pack it without a password")
            if members[name].file_size > ONE_FILE:
                raise UnsupportedModelError(f"{name} is larger than one ONNX message can be")
            data = archive.read(name)
    if name is None:
        yield None
        return
    folder = PurePosixPath(name).parent

    def opener(location: str) -> IO[bytes]:
        member = str(folder / location)
        if member not in members:
            raise InvalidModelError(
                f"the model keeps tensors in {location!r}, which is not in the archive; it "
                f"holds {', '.join(sorted(members)[:10])}"
            )
        return archive.open(member)

    with zipfile.ZipFile(file) as archive:
        yield data, opener


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Say of what goes wrong while a file is read that the file is at fault."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise InvalidModelError(f"{what} is damaged or truncated: {error}") from error


def _beside(folder: Path) -> Opener:
    def opener(location: str) -> IO[bytes]:
        path = folder / location
        try:
            inside = path.resolve(strict=True).is_relative_to(folder.resolve())
        except OSError as error:
            raise InvalidModelError(
                f"the model keeps tensors in {location!r}, which is not beside it: {error.strerror}"
            ) from error
        if not inside or not path.is_file():
            raise InvalidModelError(f"the data file {location!r} leads out of the model's folder")
        return path.open("rb")

    return opener


def _joined(data: bytes, opener: Opener, weights: bool) -> bytes:
    import onnx

    model = program_of(data)
    total = len(data)
    for _, tensor in _named_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        if weights or not is_large(tensor):
            total += size_of(tensor)
            if total > ONE_FILE:
                raise UnsupportedModelError(
                    "the model and its weights are larger than the 2 GB of one ONNX file; its graph can "
                    "be analysed, and a cut replayed on the module, without them"
                )
            tensor.raw_data = read_tensor(tensor, opener)
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    whole: bytes = model.SerializeToString()
    return whole


def program_of(data: bytes) -> onnx.ModelProto:
    """Return a program whose data files stay closed; raises ``InvalidModelError``."""
    import onnx

    try:
        return onnx.load_model_from_string(data)
    except Exception as error:
        raise InvalidModelError(f"the file is not a valid ONNX model: {error}") from error


def is_large(tensor: Any) -> bool:
    """Return whether a stored tensor is larger than those that shapes are computed from."""
    limit = KEEP_INTEGER_BYTES if tensor.data_type in _INTEGERS else KEEP_FLOAT_BYTES
    return size_of(tensor) > limit


def fits_one_file(source: bytes | Path) -> bool:
    """Return whether a model with all of its weights is small enough to be one ONNX message."""
    with opened_parts(source) as parts:
        if parts is None:
            return True
        data = parts[0]
        if not has_external_data(data):
            return True
        outside = (t for _, t in _named_tensors(program_of(data)) if t.external_data)
        return len(data) + sum(map(size_of, outside)) <= ONE_FILE


def _named_tensors(model: onnx.ModelProto) -> Iterator[tuple[str, Any]]:
    """Yield every tensor that a model stores, under the name of the value that it gives."""
    for graph in all_graphs(model.graph):
        yield from ((tensor.name, tensor) for tensor in graph.initializer)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield node.output[0], attribute.t


def _checked_location(location: str, tensor: str) -> str:
    path = PurePosixPath(location)
    wrong = not location or path.is_absolute() or ".." in path.parts or "\\" in location
    if wrong or ":" in path.parts[0] or "\0" in location:
        raise InvalidModelError(
            f"the tensor {tensor!r} is stored in {location!r}, which is no name of a file beside the model"
        )
    return location


def size_of(tensor: Any) -> int:
    """Return how many bytes a tensor takes; raises where its shape makes no sense."""
    import onnx

    count = prod(tensor.dims)
    if any(size < 0 for size in tensor.dims) or count >= 1 << 62:
        raise InvalidModelError(f"the tensor {tensor.name!r} declares impossible dimensions")
    packed = {onnx.TensorProto.INT4: 2, onnx.TensorProto.UINT4: 2, onnx.TensorProto.FLOAT4E2M1: 2}
    if tensor.data_type in packed:
        return int(-(-count // packed[tensor.data_type]))
    try:
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError) as error:
        raise InvalidModelError(f"the tensor {tensor.name!r} has no known type") from error
    return int(count * width)


def read_tensor(tensor: Any, opener: Opener) -> bytes:
    """Return the contents of a tensor that is stored in another file."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name, expected = tensor.name, size_of(tensor)
    location = _checked_location(entries.get("location", ""), name)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", expected))
    except ValueError as error:
        raise InvalidModelError(f"the tensor {name!r} says no number for its place") from error
    if offset < 0 or length != expected:
        raise InvalidModelError(
            f"the tensor {name!r} takes {expected} bytes by its shape, and {length} at {offset} of "
            f"{location!r} by its entry"
        )
    with _reading(f"the data file {location!r}"), opener(location) as file:
        file.seek(offset)
        data = file.read(expected)
    if len(data) != expected:
        raise InvalidModelError(
            f"the tensor {name!r} ends behind the end of {location!r}: the file is cut short"
        )
    return data


def large_tensors(program: bytes, opener: Opener) -> dict[str, Callable[[], Any]]:
    """Return what reads each tensor that :func:`unpacked` leaves out, by the name of its value."""
    if not has_external_data(program):
        return {}  # a whole model need not be parsed to say so
    return {
        name: partial(_with_contents, tensor, opener)
        for name, tensor in _named_tensors(program_of(program))
        if tensor.external_data and is_large(tensor)
    }


def _with_contents(tensor: onnx.TensorProto, opener: Opener) -> onnx.TensorProto:
    import onnx

    return onnx.TensorProto(
        name=tensor.name,
        dims=tensor.dims,
        data_type=tensor.data_type,
        raw_data=read_tensor(tensor, opener),
    )


def data_files(path: Path) -> list[str]:
    """Return the names of the files beside an ONNX file that hold its tensors, sorted."""
    data = path.read_bytes()
    if is_archive(data) or not has_external_data(data):
        return []
    return sorted(
        {
            _checked_location(entry.value, tensor.name)
            for _, tensor in _named_tensors(program_of(data))
            for entry in tensor.external_data
            if entry.key == "location"
        }
    )


def packed(path: Path) -> bytes | None:
    """Return a zip archive of an ONNX file and its data files, ``None`` where there are none beside it.

    What it holds are the model and the files that its tensors name, stored without compression.
    """
    names = data_files(path)
    if not names:
        return None
    opener = _beside(path.parent)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.write(path, "model.onnx")
        for name in names:
            with opener(name) as file:
                archive.writestr(name, file.read())
    return stream.getvalue()
