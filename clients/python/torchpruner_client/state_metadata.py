"""Adds to an exported ONNX file what ``load_state_dict(strict=True)`` wants and no operator reads.

``num_batches_tracked`` and its like are in a module's state and never in its graph. They travel in
the file's metadata, as protocol-buffer fields appended to its bytes; onnx is not needed for that.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from torchpruner_core.importing.wire import tensor_headers

STATE_KEY = "torchpruner.state"
MAX_BYTES = 1 << 20
"""Larger tensors that no operator reads are left out: the file would not be weightless with
them."""

_METADATA_FIELD, _KEY_FIELD, _VALUE_FIELD = 14, 1, 2
_DIMS_FIELD, _TYPE_FIELD, _RAW_FIELD = 1, 2, 9
_ONNX_TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "int16": 5, "int32": 6, "int64": 7, "bool": 9,
    "float16": 10, "float64": 11, "bfloat16": 16,
}  # fmt: skip


def with_state(data: bytes, model: Any) -> bytes:
    """Return the ONNX file ``data`` with the state of ``model`` noted in its metadata.

    ``model`` is an ``nn.Module`` or an ``ExportedProgram``; anything else leaves ``data`` as it is.
    """
    state = getattr(model, "state_dict", None)
    state = state() if callable(state) else state
    if not isinstance(state, dict):
        return data
    stored = {header.name for header in tensor_headers(data)}
    extra = {}
    for name, tensor in state.items():
        if name in stored or not hasattr(tensor, "numel") or tensor.device.type == "meta":
            continue
        dtype = str(tensor.dtype).removeprefix("torch.")
        size = tensor.numel() * tensor.element_size()
        if dtype in _ONNX_TYPES and size <= MAX_BYTES:
            extra[name] = base64.b64encode(_tensor(tensor, _ONNX_TYPES[dtype])).decode()
    keys = [name for name, tensor in state.items() if hasattr(tensor, "numel")]
    text = json.dumps({"keys": keys, "extra": extra}, separators=(",", ":")).encode()
    entry = _bytes(_KEY_FIELD, STATE_KEY.encode()) + _bytes(_VALUE_FIELD, text)
    return data + _bytes(_METADATA_FIELD, entry)


def _tensor(tensor: Any, onnx_type: int) -> bytes:
    import torch

    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    dims = b"".join(_varint(_DIMS_FIELD << 3) + _varint(size) for size in tensor.shape)
    kind = _varint(_TYPE_FIELD << 3) + _varint(onnx_type)
    return dims + kind + _bytes(_RAW_FIELD, plain.numpy().tobytes())


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
