"""Writing ONNX, node by node.

A translation asks for operators with :meth:`Writer.op` and gets the names of what they compute.
Shapes and dtypes go to :attr:`Writer.types` as they become known, so that nothing needs to be inferred.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from torchpruner_core.capture.errors import CaptureError
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.graph.written import WrittenGraph, WrittenNode, WrittenTensor

if TYPE_CHECKING:
    import onnx

BASE_OPSET = 20

Type = tuple[tuple[int, ...], str]
"""A shape and numpy's name of a dtype."""

ELEMENTS: dict[torch.dtype, tuple[int, str]] = {
    torch.float32: (1, "float32"),
    torch.uint8: (2, "uint8"),
    torch.int8: (3, "int8"),
    torch.int16: (5, "int16"),
    torch.int32: (6, "int32"),
    torch.int64: (7, "int64"),
    torch.bool: (9, "bool"),
    torch.float16: (10, "float16"),
    torch.float64: (11, "float64"),
    torch.complex64: (14, "complex64"),
    torch.complex128: (15, "complex128"),
    torch.bfloat16: (16, "bfloat16"),
    torch.float8_e4m3fn: (17, "float8_e4m3fn"),
    torch.float8_e4m3fnuz: (18, "float8_e4m3fnuz"),
    torch.float8_e5m2: (19, "float8_e5m2"),
    torch.float8_e5m2fnuz: (20, "float8_e5m2fnuz"),
    torch.uint16: (4, "uint16"),
    torch.uint32: (12, "uint32"),
    torch.uint64: (13, "uint64"),
}
"""ONNX's number of an element type, and numpy's name."""


def stored_type(shape: Sequence[int], dtype: torch.dtype) -> tuple[tuple[int, ...], int, str]:
    """Return shape, ONNX's element type and numpy's dtype of a tensor as the program has it.

    Complex numbers are pairs of real ones along a last axis.
    """
    element, name = ELEMENTS[dtype.to_real() if dtype.is_complex else dtype]
    return (*shape, 2) if dtype.is_complex else tuple(shape), element, name


class Writer:
    """Writes one graph. ``module`` is where the operators written now belong."""

    def __init__(self, graph: WrittenGraph, taken: Iterable[str]) -> None:
        self.graph = graph
        self.module = ""
        self.opset = BASE_OPSET
        self.domains: set[str] = set()
        self.types: dict[str, Type] = {}
        self._taken = set(taken)
        self._names: dict[int, str] = {}
        self._kept: list[Value] = []
        self._constants: dict[Any, str] = {}
        self._count = 0
        self._nodes: list[WrittenNode] = []

    # Values

    def bind(self, value: Value, name: str) -> None:
        """Let ``value`` be known by ``name``."""
        self._names[id(value)] = name
        self._kept.append(value)  # an id stands for a value while the value lives
        self._know(name, value.shape, value.dtype)

    def _know(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        shape, _, kind = stored_type(shape, dtype)
        self.types[name] = shape, kind

    def name(self, value: Any) -> str:
        """Return the name of a value; a constant is stored where it is first read."""
        if value is None:
            return ""
        if type(value) is str:
            return value
        found = self._names.get(id(value))
        if found is None:
            if value.data is None:
                raise CaptureError(f"{value} is read before it is computed")
            found = self.tensor(value.data, value.name)
            self.bind(value, found)
        return found

    def fresh(self, prefix: str = "v") -> str:
        """Return a name that nothing has."""
        while True:
            self._count += 1
            name = f"{prefix}{self._count}"
            if name not in self._taken:
                return name

    # Constants

    def ints(self, values: Sequence[int] | int) -> str:
        """Return the name of a stored list of int64, or of one."""
        key = tuple(values) if not isinstance(values, int) else values
        found = self._constants.get(key)
        if found is None:
            array = np.array(values, dtype=np.int64)
            found = self._constants[key] = self.fresh("val_")
            self._store(found, array.shape, 7, "int64", array.tobytes())
        return found

    def scalar(self, value: Any, dtype: torch.dtype) -> str:
        """Return the name of a stored number."""
        key = (type(value), value, dtype)
        found = self._constants.get(key)
        if found is None:
            if dtype.is_floating_point or dtype.is_complex or type(value) in (int, bool):
                tensor = torch.tensor(value, dtype=dtype)
            else:
                tensor = torch.tensor(value).to(dtype)
            found = self._constants[key] = self.tensor(tensor)
        return found

    def tensor(self, tensor: torch.Tensor, name: str = "") -> str:
        """Store a tensor's contents; return its name."""
        if not name or name in self._taken:
            name = self.fresh("val_")
        self._taken.add(name)
        self._store(name, *stored_type(tensor.shape, tensor.dtype), raw_bytes(tensor))
        return name

    def _store(
        self, name: str, shape: tuple[int, ...], element: int, dtype: str, raw: bytes
    ) -> None:
        shape = tuple(shape)
        self.graph.initializer.append(WrittenTensor(name, shape, element, dtype, raw))
        self.types[name] = shape, dtype

    # Operators

    def op(
        self,
        op_type: str,
        *inputs: Any,
        shape: Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        domain: str = "",
        since: int = 0,
        **attributes: Any,
    ) -> str:
        """Write an operator with one output; return the output's name.

        Inputs are values or names, ``None`` for one that is left out. ``shape`` and ``dtype`` are the
        output's, where they are known and it is no output of the call. ``since`` is the operator set
        that brought the operator.
        """
        return self.ops(
            op_type,
            *inputs,
            outputs=1,
            domain=domain,
            since=since,
            types=None if shape is None or dtype is None else [(tuple(shape), dtype)],
            **attributes,
        )[0]

    def ops(
        self,
        op_type: str,
        *inputs: Any,
        outputs: int,
        domain: str = "",
        since: int = 0,
        types: Sequence[tuple[tuple[int, ...], torch.dtype]] | None = None,
        attributes: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> list[str]:
        """Write an operator with several outputs; return their names.

        ``attributes`` holds those that are called as an argument of this function.
        """
        names = [each if type(each) is str else self.name(each) for each in inputs]
        while names and not names[-1]:
            names.pop()
        made = [self.fresh() for _ in range(outputs)]
        if domain:
            self.domains.add(domain)
        if since > self.opset:
            self.opset = since
        settings = {
            key: _settled(key, value)
            for key, value in ({**attributes, **more} if attributes else more).items()
            if value is not None
        }
        node = WrittenNode(op_type, names, list(made), settings, domain, self.module)
        self.graph.node.append(node)
        self._nodes.append(node)
        for name, known in zip(made, types or (), strict=False):
            self._know(name, *known)
        return made

    def finish(self, call: Call, names: str | Sequence[str | None], wanted: dict[int, str]) -> None:
        """Bind what a translation gave to the call's outputs; ``wanted`` names the graph's outputs."""
        given = [names] if isinstance(names, str) else list(names)
        for value, name in zip(call.outputs, given, strict=False):
            if name is None:
                continue
            asked = wanted.get(id(value))
            if asked is not None and self._rename(name, asked):
                name = asked
            self.bind(value, name)
        self._nodes.clear()

    def _rename(self, name: str, asked: str) -> bool:
        """Give a value that was just computed the name that the graph's output has."""
        made = next((n for n in self._nodes if name in n.output), None)
        if made is None:
            return False
        for node in self._nodes:
            for names in (node.input, node.output):
                for k, each in enumerate(names):
                    if each == name:
                        names[k] = asked
        return True

    # Dtypes and shapes

    def cast(self, value: Any, dtype: torch.dtype, was: torch.dtype | None = None) -> str:
        """Return the name of ``value`` in another dtype; ``was`` is the dtype of a name."""
        before = value.dtype if type(value) is Value else was
        if before is dtype:
            return self.name(value)
        shape = value.shape if type(value) is Value else None
        return self.op("Cast", value, to=ELEMENTS[dtype][0], shape=shape, dtype=dtype)

    def operand(self, value: Any, dtype: torch.dtype) -> str:
        """Return the name of a tensor or number as an operand of an operator in ``dtype``."""
        if type(value) is Value:
            if value.fixed and value.data is not None and value.dtype is not dtype:
                return self.tensor(value.data.to(dtype))
            return self.cast(value, dtype)
        return self.scalar(value, dtype)

    def reshape(self, value: Any, shape: Sequence[int], dtype: torch.dtype | None = None) -> str:
        """Return ``value`` under another shape."""
        kind = value.dtype if type(value) is Value else dtype
        return self.op("Reshape", value, self.ints(list(shape)), shape=shape, dtype=kind)


def _settled(key: str, value: Any) -> Any:
    """Return an attribute's value as ONNX has it: a number, a text, a list of one kind, a tensor."""
    kind = type(value)
    if kind is int or kind is str:
        return value
    if isinstance(value, int):
        return int(value)
    if kind is float:
        return _SINGLE.unpack(_SINGLE.pack(value))[0]  # an attribute is a float32
    if isinstance(value, torch.Tensor):
        return _tensor_proto(value)
    if isinstance(value, str):
        return str(value)
    listed = list(value)
    if all(isinstance(each, int) for each in listed):
        return [int(each) for each in listed]
    if all(isinstance(each, (int, float)) for each in listed):
        return [_SINGLE.unpack(_SINGLE.pack(each))[0] for each in listed]
    if all(isinstance(each, str) for each in listed):
        return listed
    raise CaptureError(f"the attribute {key} cannot hold {value!r}")


_SINGLE = struct.Struct("f")


def _tensor_proto(value: torch.Tensor) -> onnx.TensorProto:
    import onnx

    found = onnx.TensorProto()
    found.data_type = ELEMENTS[value.dtype][0]
    found.dims.extend(value.shape)
    found.raw_data = raw_bytes(value)
    return found


_NUMPY_HAS = frozenset(
    {torch.Tensor, torch.nn.Parameter, torch.float32, torch.int64, torch.int32, torch.float64}
)
"""Classes and dtypes of tensors that numpy takes as they are."""


def raw_bytes(tensor: torch.Tensor) -> bytes:
    """Return a tensor's contents as ONNX stores them."""
    kind = tensor.dtype
    if type(tensor) in _NUMPY_HAS and kind in _NUMPY_HAS and tensor.device.type == "cpu":
        stored: bytes = tensor.detach().numpy().tobytes()
        return stored
    plain = tensor.detach().cpu().contiguous()
    if plain.is_complex():
        plain = torch.view_as_real(plain.resolve_conj())
    if plain.dtype is torch.bool:
        plain = plain.view(torch.uint8)
    raw: bytes = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return raw
