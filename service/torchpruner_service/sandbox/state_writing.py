"""Writes a state as safetensors or ``.npz``, tensor by tensor, the same bytes every time.

The safetensors layout is that of https://huggingface.co/docs/safetensors: eight bytes of header
length, a JSON header with offsets, the elements. Written here because its library needs all tensors
in memory.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from torchpruner_service.sandbox.state_reading import StoredTensor

ITEM_SIZE = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip

Write = Callable[["bytes | memoryview"], None]


def write_safetensors(tensors: Mapping[str, StoredTensor], write: Write) -> None:
    """Write ``tensors`` in the safetensors format; sizes come from shapes before data is read."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        size = prod(tensor.shape) * ITEM_SIZE[tensor.dtype]
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write(struct.pack("<Q", len(text)) + text)
    for tensor in tensors.values():
        array = np.ascontiguousarray(tensor.bits())
        if array.nbytes:
            write(array.reshape(-1).view(np.uint8).data)


def write_npz(tensors: Mapping[str, StoredTensor], write: Write) -> None:
    """Write ``tensors`` as numpy's ``.npz``. bfloat16 becomes float32, which holds it exactly."""
    with zipfile.ZipFile(_Sink(write), "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, tensor in tensors.items():
            # The date is fixed: the same request gives the same bytes.
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            array = np.asanyarray(_widened(tensor))
            with archive.open(entry, "w", force_zip64=True) as file:
                npy.write_array(file, array, allow_pickle=False)


def write_archive(files: Iterable[Path], write: Write) -> None:
    """Write a zip of files, without compression."""
    with zipfile.ZipFile(_Sink(write), "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path in files:
            archive.write(path, path.name)


WRITERS: dict[str, Callable[[Mapping[str, StoredTensor], Write], None]] = {
    "safetensors": write_safetensors,
    "npz": write_npz,
}


def _widened(tensor: StoredTensor) -> NDArray[Any]:
    array = tensor.bits()
    if tensor.dtype == "BF16":
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array


class _Sink(io.RawIOBase):
    """A write-only stream that cannot seek."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation("seek")

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._write(view)
        self._position += len(view)
        return len(view)
