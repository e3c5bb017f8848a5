"""Data types and shapes as ONNX writes them, and their names in numpy and torch."""

from __future__ import annotations

from typing import Any

import numpy as np

Shape = tuple[int, ...]

UNKNOWN = -1
"""The size of an axis that only the data decides."""


def np_dtype(name: str) -> np.dtype[Any]:
    """Return numpy's dtype of a node's dtype name; ``bfloat16`` comes from ``ml_dtypes``."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype


def is_complete(entry: tuple[Shape | None, str] | None) -> bool:
    """Return whether a shape is known, and every size in it."""
    return entry is not None and entry[0] is not None and UNKNOWN not in entry[0]


def read_type(type_proto: Any) -> tuple[Shape | None, str]:
    """Return shape and dtype; shape ``None`` has no known rank, ``UNKNOWN`` stands for a size."""
    if not type_proto.HasField("tensor_type"):
        return None, ""
    tensor = type_proto.tensor_type
    dtype = dtype_name(tensor.elem_type)
    if not tensor.HasField("shape"):
        return None, dtype
    return tuple(
        d.dim_value if d.HasField("dim_value") else UNKNOWN for d in tensor.shape.dim
    ), dtype


_DTYPES: dict[int, str] = {}


def dtype_name(element_type: int) -> str:
    """Return numpy's name of an ONNX element type (``'float32'``)."""
    if element_type not in _DTYPES:
        from onnx.helper import tensor_dtype_to_np_dtype

        try:
            _DTYPES[element_type] = str(tensor_dtype_to_np_dtype(element_type))
        except KeyError:
            _DTYPES[element_type] = "undefined"
    return _DTYPES[element_type]


def element_type(dtype: str) -> int:
    """Return the number of ONNX's element type that numpy calls ``dtype``."""
    import onnx

    return int(onnx.helper.np_dtype_to_tensor_dtype(np_dtype(dtype)))
