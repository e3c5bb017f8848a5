"""What a graph tells of its tensors, operators and modules, in plain frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

NodeKind = Literal["parameter", "buffer", "constant", "input", "output", "intermediate"]

TERMINAL_KINDS = frozenset({"parameter", "buffer", "constant"})


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One tensor of the graph.

    ``producer`` and ``consumers`` are operator names; ``alias_of`` names the node that shares
    this one's storage (tied weights).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: NodeKind
    module: str
    producer: str | None = None
    consumers: tuple[str, ...] = ()
    alias_of: str | None = None


@dataclass(frozen=True, slots=True)
class OperatorInfo:
    """One operator: ``inputs`` and ``outputs`` are node names; ``flops`` counts two a MAC."""

    name: str
    type: str
    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    flops: int = 0

    @property
    def macs(self) -> int:
        return self.flops // 2


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """One module, or one parameter or buffer, by its dotted name from ``self``.

    ``params`` and ``flops`` include everything below; ``operators`` are the module's own.
    """

    name: str
    type: str
    parent: str | None
    children: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    params: int = 0
    flops: int = 0

    @property
    def macs(self) -> int:
        return self.flops // 2


Record = TypeVar("Record", NodeInfo, OperatorInfo, ModuleInfo)


def record_to_dict(record: NodeInfo | OperatorInfo | ModuleInfo) -> dict[str, Any]:
    """Return the fields of a record as plain values, and MACs where it has FLOPs."""
    shown = {name: getattr(record, name) for name in record.__dataclass_fields__}
    return shown if isinstance(record, NodeInfo) else {**shown, "macs": record.macs}


def record_from_dict(kind: type[Record], data: Mapping[str, Any]) -> Record:
    """Return the record that :func:`record_to_dict` or JSON shows; members it does not know fall away."""
    members: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in data.items()
        if name in kind.__dataclass_fields__
    }
    return kind(**members)
