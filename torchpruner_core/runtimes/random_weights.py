"""Weights for a model that has none, so that it can be timed: time does not depend on their values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def with_random_weights(data: bytes) -> bytes:
    """Return the ONNX model ``data`` with small random numbers in the tensors whose data is missing.

    Normalised to the length of their axes, so that values neither vanish nor overflow: subnormal
    numbers and NaN are slower than others on many machines.
    """
    import onnx

    model = onnx.load_model_from_string(data)
    random = np.random.default_rng(0)
    for tensor in _tensors(model.graph):
        if _is_empty(tensor):
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            shape = tuple(tensor.dims)
            if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
                values: Any = np.zeros(shape, dtype)
            else:
                fan = max(1, int(np.prod(shape[1:], dtype=np.int64)))
                values = np.abs(random.standard_normal(shape, np.float32)) / np.sqrt(fan) + 1e-3
                values = values.astype(dtype)
            filled = onnx.numpy_helper.from_array(values, tensor.name)
            tensor.CopyFrom(filled)
    result: bytes = model.SerializeToString()
    return result


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for inner in attribute.graphs:
                yield from _tensors(inner)


def _is_empty(tensor: Any) -> bool:
    """Whether a tensor with elements holds none of them."""
    if not np.prod(tensor.dims, dtype=np.int64):
        return False
    held = (
        tensor.raw_data, tensor.float_data, tensor.int32_data, tensor.int64_data,
        tensor.double_data, tensor.uint64_data, tensor.string_data, tensor.external_data,
    )  # fmt: skip
    return not any(len(part) for part in held)
