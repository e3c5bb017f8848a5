"""A model's state: every tensor that ``load_state_dict(strict=True)`` asks for, under its own name.

A TorchScript file or ``torch.export`` archive has a state dict, which includes what never reaches a
graph (``num_batches_tracked``). An ONNX file has its initializers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.cut_result import TensorSpec
from torchpruner_service.problems import InvalidUpload


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a state. ``bits()`` gives its elements as an array whose dtype has the size of
    an element, which for types that numpy lacks (bfloat16, float8) is an unsigned integer."""

    dtype: str
    shape: tuple[int, ...]
    bits: Callable[[], NDArray[Any]]
    storage: int = 0
    """Equal and not zero for tensors that share their memory (tied weights)."""


def read_state(path: Path, form: str, inputs: list[TensorSpec]) -> dict[str, StoredTensor]:
    """Return the state of the model in ``path`` without computing anything."""
    if form == "torchscript":
        import torch

        return _torch_state(torch.jit.load(str(path), map_location="cpu").state_dict())
    if form == "pt2":
        import torch

        return _torch_state(dict(torch.export.load(str(path)).state_dict))
    return _onnx_state(path, inputs)


_TORCH_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "bool": "BOOL",
    "complex64": "C64",
}
_BITS = {"bfloat16": "int16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}


def _torch_state(state: dict[str, Any]) -> dict[str, StoredTensor]:
    import torch

    found = {}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            continue
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in _TORCH_DTYPES:
            raise InvalidUpload(
                f"{name} has the dtype {kind}, which safetensors cannot hold",
                slug="unsupported-dtype",
                tensor=name,
            )
        found[name] = StoredTensor(
            _TORCH_DTYPES[kind],
            tuple(tensor.shape),
            _reader(tensor, _BITS.get(kind)),
            tensor.untyped_storage().data_ptr() if tensor.numel() else 0,
        )
    return found


def _reader(tensor: Any, bits: str | None) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        import torch

        plain = tensor.detach().contiguous()
        if bits is not None:
            plain = plain.view(getattr(torch, bits))
        array: NDArray[Any] = plain.numpy()
        return array

    return read


_ONNX_DTYPES: dict[int, tuple[str, str]] = {
    1: ("F32", "<f4"),
    2: ("U8", "u1"),
    3: ("I8", "i1"),
    4: ("U16", "<u2"),
    5: ("I16", "<i2"),
    6: ("I32", "<i4"),
    7: ("I64", "<i8"),
    9: ("BOOL", "?"),
    10: ("F16", "<f2"),
    11: ("F64", "<f8"),
    12: ("U32", "<u4"),
    13: ("U64", "<u8"),
    16: ("BF16", "<u2"),
    17: ("F8_E4M3", "u1"),
    19: ("F8_E5M2", "u1"),
}


def _onnx_state(path: Path, inputs: list[TensorSpec]) -> dict[str, StoredTensor]:
    from torchpruner_service.sandbox.onnx_state import named_initializers

    found = {}
    for name, tensor, storage in named_initializers(path, inputs):
        if tensor.data_type not in _ONNX_DTYPES:
            raise InvalidUpload(
                f"{name} has the ONNX type {tensor.data_type}, which safetensors cannot hold",
                slug="unsupported-dtype",
                tensor=name,
            )
        kind, numpy_type = _ONNX_DTYPES[tensor.data_type]
        reader = _onnx_reader(tensor, numpy_type)
        found[name] = StoredTensor(kind, tuple(tensor.dims), reader, storage)
    return found


def _onnx_reader(tensor: Any, numpy_type: str) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        shape = tuple(tensor.dims)
        if tensor.HasField("raw_data"):
            return np.frombuffer(tensor.raw_data, dtype=numpy_type).reshape(shape)
        from onnx import numpy_helper

        array = np.ascontiguousarray(numpy_helper.to_array(tensor))
        return array.view(numpy_type).reshape(shape)

    return read
