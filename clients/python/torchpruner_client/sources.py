"""What a user calls "the model", as bytes to send: exported here, stripped of its weights where
they are not needed.

torch is imported only where a module is given, and then the user has imported it already.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchpruner_client.state_metadata import with_state
from torchpruner_core.cut_result import TensorSpec
from torchpruner_core.errors import InputSpecError, InvalidModelError

Dynamic = Mapping[str | int, Mapping[int, str] | Sequence[int]]
"""Input name or position -> the names of its symbolic axes, or the axes alone."""

SMALL = 256 << 10
"""Files up to this size are sent as they are: leaving weights out would save nothing worth it."""


@dataclass(slots=True)
class Source:
    """A model on this side: a file, bytes, or a module that was exported.

    ``content`` is what is sent; ``whole()`` is the file with its weights.
    """

    content: Path | bytes
    inputs: list[TensorSpec]
    weightless: bool
    full_size: int
    origin: Any = field(default=None, repr=False)

    def __len__(self) -> int:
        if isinstance(self.content, Path):
            return self.content.stat().st_size
        return len(self.content)

    def sha256(self) -> str:
        return digest_of(self.content)

    def whole(self) -> Path | bytes:
        """Return the file with its weights; for a module that exports them now."""
        if isinstance(self.origin, _Exported | _DataFiles):
            return self.origin.whole()
        return self.origin if self.origin is not None else self.content


def digest_of(content: Path | bytes) -> str:
    """The sha256 of a file or bytes, in hex."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(content).hexdigest()


def source_of(
    model: Any, inputs: Any, weights: bool | None, dynamic: Dynamic | None = None
) -> Source:
    """Return what to send of ``model``.

    ``model`` is a path, bytes, an ``nn.Module``, a ``ScriptModule``, an ``ExportedProgram`` or an
    ``onnx.ModelProto``. ``weights=None`` leaves them out wherever that is possible: of a module and
    of an ONNX file, not of TorchScript or ``.pt2`` archives, which are sent as they are. ``dynamic`` marks
    axes of a module's inputs that stay symbolic; raises ``ExportError`` where ``model`` is no module.
    """
    if dynamic:
        return _module_source(model, inputs, weights, dynamic)
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        return _file_source(path, inputs, weights)
    if isinstance(model, (bytes, bytearray, memoryview)):
        return _file_source(bytes(model), inputs, weights)
    if hasattr(model, "SerializeToString"):
        return _file_source(model.SerializeToString(), inputs, weights)
    return _module_source(model, inputs, weights)


def _file_source(content: Path | bytes, inputs: Any, weights: bool | None) -> Source:
    specs = specs_of(inputs)
    beside = _DataFiles.of(content)
    if beside is not None:
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        if weights:
            return Source(beside.whole(), specs, False, size)
        return Source(beside.weightless(), specs, True, size, origin=beside)
    head = _head(content)
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    is_archive = head[:2] == b"PK"
    if is_archive or weights or (weights is None and size <= SMALL):
        if weights is False and is_archive:
            raise ValueError(
                "a TorchScript or .pt2 archive holds its weights together with its code; "
                "load it and give the "
                "module, or upload it whole"
            )
        return Source(content, specs, False, size)
    from torchpruner_core import strip_weights

    data = content.read_bytes() if isinstance(content, Path) else content
    try:
        stripped = strip_weights(data)
    except InvalidModelError:
        # The service says what is wrong with it better than a guess from here would.
        return Source(content, specs, False, size)
    return Source(stripped, specs, True, size, origin=content)


class _DataFiles:
    """An ONNX file whose tensors lie in files beside it; with them it is sent as a zip."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of(cls, content: Path | bytes) -> _DataFiles | None:
        """Return the model at a path, ``None`` where it is whole, or nothing of the kind."""
        from torchpruner_core.importing.external_data import has_external_data

        if not isinstance(content, Path) or content.suffix.lower() != ".onnx":
            return None
        try:
            return cls(content) if has_external_data(content.read_bytes()) else None
        except InvalidModelError:
            return None  # the service says better what is wrong with it

    def weightless(self) -> bytes:
        from torchpruner_core.importing.external_data import unpacked
        from torchpruner_core.importing.wire import strip_weights

        return strip_weights(unpacked(self._path, weights=False))

    def whole(self) -> bytes:
        from torchpruner_core.importing.external_data import packed

        return packed(self._path) or self._path.read_bytes()


def _module_source(
    model: Any, inputs: Any, weights: bool | None, dynamic: Dynamic | None = None
) -> Source:
    exported = _Exported(model, inputs, dynamic)
    size = exported.size()
    if weights:
        return Source(exported.whole(), exported.specs, False, size, origin=exported)
    return Source(exported.weightless(), exported.specs, True, size, origin=exported)


class _Exported:
    """A module's program; its weights are serialised only when they are asked for."""

    def __init__(self, model: Any, inputs: Any, dynamic: Dynamic | None) -> None:
        from torchpruner_core.exporting import export
        from torchpruner_core.exporting.structures import specs_of as shapes_of

        example = _example_inputs(inputs)
        self._model = model
        self._program = export(model, example, dynamic=dynamic)
        self.specs: list[TensorSpec] = []
        """The inputs' sizes where the program leaves them open."""
        if dynamic:
            shapes = shapes_of(example) or []
            self.specs = list(shapes.values() if isinstance(shapes, Mapping) else shapes)

    def size(self) -> int:
        state = getattr(self._model, "state_dict", None)
        tensors = (state() if callable(state) else state or {}).values()
        return sum(
            tensor.numel() * tensor.element_size() for tensor in tensors if hasattr(tensor, "numel")
        )

    def weightless(self) -> bytes:
        return with_state(self._program.weightless(), self._model)

    def whole(self) -> bytes:
        return with_state(self._program.with_weights(), self._model)


def _example_inputs(inputs: Any) -> Any:
    """Return inputs as the exporter takes them: tensors stay, shapes become specs."""
    if inputs is None or _is_empty(inputs):
        return inputs
    if isinstance(inputs, Mapping):
        return {name: _argument(str(name), value) for name, value in inputs.items()}
    if _is_tensor(inputs):
        return (inputs,)
    if _is_shape(inputs) or isinstance(inputs, TensorSpec):
        return (_spec("", inputs),)
    if not isinstance(inputs, Sequence) or isinstance(inputs, (str, bytes)):
        raise InputSpecError(
            "inputs are a tensor, a shape, a tuple of arguments or a dict of them by name, not "
            f"{inputs!r:.80}"
        )
    return tuple(_argument("", value) for value in inputs)


def _argument(name: str, value: Any) -> Any:
    """Return one argument of a module: a tensor, a shape in its place, a number, or a container."""
    if _is_tensor(value) or value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, TensorSpec) or _is_shape(value) or _is_pair(value):
        return _spec(name, value)
    if isinstance(value, Mapping):
        return {key: _argument("", each) for key, each in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_argument("", each) for each in value)
    return value


def specs_of(inputs: Any) -> list[TensorSpec]:
    """Return the shapes and dtypes of inputs given as tensors, arrays, specs, shapes, or a mapping
    of those."""
    if inputs is None or _is_empty(inputs):
        return []
    if isinstance(inputs, Mapping):
        return [_spec(str(name), value) for name, value in inputs.items()]
    if isinstance(inputs, TensorSpec) or _is_tensor(inputs) or _is_shape(inputs):
        return [_spec("", inputs)]
    return [_spec("", value) for value in inputs]


def _spec(name: str, value: Any) -> TensorSpec:
    if isinstance(value, TensorSpec):
        return TensorSpec(name or value.name, value.shape, value.dtype, value.value)
    if _is_tensor(value):
        dtype = str(value.dtype).removeprefix("torch.")
        return TensorSpec(name, tuple(int(size) for size in value.shape), dtype)
    if _is_shape(value):
        return TensorSpec(name, tuple(int(size) for size in value))
    if _is_pair(value):
        return TensorSpec(name, tuple(int(size) for size in value[0]), value[1])
    raise TypeError(
        f"an input is a tensor, an array, a TensorSpec, a shape like (1, 3, 224, 224) or a "
        f"pair of a shape and a "
        f"dtype, not {value!r}"
    )


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, TensorSpec)


def _is_empty(inputs: Any) -> bool:
    return isinstance(inputs, (tuple, list, Mapping)) and len(inputs) == 0


def _is_pair(value: Any) -> bool:
    """Whether ``value`` is a shape and the name of a dtype."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and isinstance(value[1], str)
        and _is_shape(value[0])
    )


def _is_shape(value: Any) -> bool:
    return isinstance(value, Sequence) and all(
        isinstance(size, int) and not isinstance(size, bool) for size in value
    )


def _head(content: Path | bytes) -> bytes:
    if isinstance(content, Path):
        with content.open("rb") as file:
            return file.read(4)
    return content[:4]
