"""ONNX files at the level of their bytes: weights taken out, sizes read, without loading anything.

An ONNX file is a protocol-buffer message: fields of a tag, a length and a payload. Walking those
gives every tensor's declared shape and payload without parsing or copying the weights, and needs
neither onnx nor numpy. Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torchpruner_core.errors import InvalidModelError

Buffer = bytes | bytearray | memoryview

KEEP_FLOAT_BYTES = 64
"""Larger tensors of floating-point numbers lose their data: no shape is computed from them."""

KEEP_INTEGER_BYTES = 1 << 18
"""Larger tensors of integers lose their data; smaller ones may be shapes or indices."""

SMALL_BYTES = 1 << 13
"""Where speed counts more than size, a node or tensor up to this size is copied whole."""

MAX_FIELDS = 500_000
"""A graph has a field for each operator, initializer and value: the largest models have 100,000."""

MAX_RANK = 1000
"""Of bytes, and of dimensions written one by one, in a tensor's shape."""

_MODEL_GRAPH = 7
_MODEL_FUNCTIONS = 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_VALUE_INFO, _GRAPH_SPARSE = 1, 5, 13, 15
_FUNCTION_NODE = 7
_NODE_ATTRIBUTE, _NODE_DOC, _NODE_METADATA = 5, 6, 9
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_TENSOR_DATA = frozenset({4, 5, 6, 7, 9, 10, 11})
_INTEGER_TYPES = frozenset({2, 3, 4, 5, 6, 7, 9, 12, 13, 21, 22})
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_DEPTH_LIMIT = 32
_DROPPED_METADATA = (
    b"pkg.torch.onnx.class_hierarchy",
    b"pkg.torch.onnx.fx_node",
    b"pkg.torch.onnx.stack_trace",
    b"namespace",
)


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """What a stored tensor declares: name, dims, ONNX data type, bytes stored, external or not."""

    name: str
    dims: tuple[int, ...]
    data_type: int
    stored: int
    external: bool


def strip_weights(data: Buffer, *, keep_metadata: bool = False) -> bytes:
    """Return the ONNX model ``data`` without the contents of its large tensors.

    Names, shapes, types and the small integer constants that shapes are computed from stay; so do
    the node scopes that module names come from. Shapes of intermediate values go: they follow. The
    exporters' stack traces go too, which takes longer; ``keep_metadata`` leaves them. Raises
    ``InvalidModelError`` where ``data`` is not an ONNX model.
    """
    small = SMALL_BYTES if keep_metadata else KEEP_FLOAT_BYTES
    out: list[Buffer] = []
    graphs = 0
    for number, field, payload in _fields(memoryview(data)):
        if number == _MODEL_GRAPH and payload is not None:
            graphs += 1
            _emit(out, number, _strip_graph(payload, 0, small))
        elif number == _MODEL_FUNCTIONS and payload is not None:
            _emit(out, number, _strip_nodes(payload, _FUNCTION_NODE, 0))
        else:
            out.append(field)
    if graphs != 1:
        raise InvalidModelError("the file is not an ONNX model: it holds no graph")
    return b"".join(out)


def tensor_headers(data: Buffer) -> Iterator[TensorHeader]:
    """Yield the header of every initializer of the main graph; contents are not read.

    Raises ``InvalidModelError`` where the file has more than :data:`MAX_FIELDS` fields to walk: a few
    bytes each, so that a small file could take minutes.
    """
    room = MAX_FIELDS
    for number, _, payload in _fields(memoryview(data)):
        room -= 1
        if number == _MODEL_GRAPH and payload is not None:
            for inner, _, tensor in _fields(payload):
                room -= 1
                if inner == _GRAPH_INITIALIZER and tensor is not None:
                    header, read = _header(tensor, room)
                    room -= read
                    yield header
                if room < 0:
                    raise _too_many_fields()
        if room < 0:
            raise _too_many_fields()


def _too_many_fields() -> InvalidModelError:
    return InvalidModelError(
        f"the file has more than {MAX_FIELDS} fields in its graph, which no model needs; export the "
        "model again"
    )


def _strip_graph(graph: memoryview, depth: int, small: int = KEEP_FLOAT_BYTES) -> list[Buffer]:
    out: list[Buffer] = []
    for number, field, payload in _fields(graph):
        if number == _GRAPH_INITIALIZER and payload is not None and len(payload) > small:
            _emit(out, number, _strip_tensor(payload))
        elif number == _GRAPH_NODE and payload is not None and len(payload) > small:
            _emit(out, number, _strip_node(payload, depth))
        elif number == _GRAPH_VALUE_INFO:
            continue
        elif number == _GRAPH_SPARSE:
            raise InvalidModelError("the file holds sparse initializers, which are not supported")
        else:
            out.append(field)
    return out


def _strip_nodes(function: memoryview, node_field: int, depth: int) -> list[Buffer]:
    out: list[Buffer] = []
    for number, field, payload in _fields(function):
        if number == node_field and payload is not None:
            _emit(out, number, _strip_node(payload, depth))
        else:
            out.append(field)
    return out


def _strip_node(node: memoryview, depth: int) -> list[Buffer]:
    if depth > _DEPTH_LIMIT:
        raise InvalidModelError(f"the file nests graphs more than {_DEPTH_LIMIT} deep")
    out: list[Buffer] = []
    for number, field, payload in _fields(node):
        if payload is None or number not in (_NODE_ATTRIBUTE, _NODE_DOC, _NODE_METADATA):
            out.append(field)
        elif number == _NODE_ATTRIBUTE:
            _emit(out, number, _strip_attribute(payload, depth))
        elif number == _NODE_METADATA and not any(
            key in payload.tobytes()[:40] for key in _DROPPED_METADATA
        ):
            out.append(field)
    return out


def _strip_attribute(attribute: memoryview, depth: int) -> list[Buffer]:
    out: list[Buffer] = []
    for number, field, payload in _fields(attribute):
        if payload is not None and number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _emit(out, number, _strip_tensor(payload))
        elif payload is not None and number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            _emit(out, number, _strip_graph(payload, depth + 1))
        else:
            out.append(field)
    return out


def _strip_tensor(tensor: memoryview) -> list[Buffer]:
    kept: list[Buffer] = []
    data_type = stored = 0
    for number, field, payload in _fields(tensor):
        if number in _TENSOR_DATA:
            stored += len(field if payload is None else payload)
            continue
        kept.append(field)
        if number == _TENSOR_TYPE:
            data_type = next(iter(_varints(field, payload)), 0)
    limit = KEEP_INTEGER_BYTES if data_type in _INTEGER_TYPES else KEEP_FLOAT_BYTES
    return [tensor] if stored <= limit else kept


def _header(tensor: memoryview, room: int) -> tuple[TensorHeader, int]:
    """Return what a tensor declares and how many fields were read, at most ``room``."""
    name, data_type, stored, external = "", 0, 0, False
    dims: list[int] = []
    read = 0
    for number, field, payload in _fields(tensor):
        read += 1
        if read > room:
            raise _too_many_fields()
        if number in (_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_LOCATION):
            if len(field) > MAX_RANK or len(dims) > MAX_RANK:
                raise InvalidModelError("a tensor declares more dimensions than any has")
            values = _varints(field, payload)
            if number == _TENSOR_DIMS:
                dims += values
            elif number == _TENSOR_TYPE:
                data_type = values[-1] if values else 0
            else:
                external = external or values[-1:] == [1]
        elif number == _TENSOR_NAME and payload is not None:
            name = payload.tobytes().decode("utf-8", "replace")
        elif number in _TENSOR_DATA:
            stored += len(field if payload is None else payload)
        elif number == _TENSOR_EXTERNAL:
            external = True
    return TensorHeader(name, tuple(dims), data_type, stored, external), read


def _varints(field: memoryview, payload: memoryview | None) -> list[int]:
    """Return the integers of a field, packed or single."""
    if payload is None:
        _, position = _varint(field, 0)
        return [_varint(field, position)[0]]
    values, position = [], 0
    while position < len(payload):
        value, position = _varint(payload, position)
        values.append(value)
    return values


def _emit(out: list[Buffer], number: int, parts: list[Buffer]) -> None:
    out.append(_encode_varint(number << 3 | _BYTES))
    out.append(_encode_varint(sum(len(part) for part in parts)))
    out.extend(parts)


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise InvalidModelError("the file is not an ONNX model, or it is truncated")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview, memoryview | None]]:
    """Yield ``(field number, whole field, payload)``; the payload of a scalar is ``None``."""
    position, end = 0, len(data)
    while position < end:
        start = position
        tag = data[position]  # most numbers are one byte
        if tag < 0x80:
            position += 1
        else:
            tag, position = _varint(data, position)
        kind = tag & 7
        if kind == _BYTES:
            if position < end and data[position] < 0x80:
                size = data[position]
                position += 1
            else:
                size, position = _varint(data, position)
            payload: memoryview | None = data[position : position + size]
            position += size
        else:
            payload = None
            if kind == _VARINT:
                _, position = _varint(data, position)
            elif kind == _FIXED64:
                position += 8
            elif kind == _FIXED32:
                position += 4
            else:
                raise InvalidModelError("the file is not an ONNX model")
        if position > end or tag >> 3 == 0:
            raise InvalidModelError("the file is not an ONNX model, or it is truncated")
        yield tag >> 3, data[start:position], payload


def holds_graph(data: Buffer) -> bool:
    """Return whether ``data`` reads as an ONNX model: well-formed fields, exactly one graph."""
    graphs = 0
    try:
        for position, (number, _, _) in enumerate(_fields(memoryview(data))):
            graphs += number == _MODEL_GRAPH
            if position > MAX_FIELDS:
                return False
    except InvalidModelError:
        return False
    return graphs == 1
