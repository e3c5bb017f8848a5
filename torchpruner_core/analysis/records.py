"""What a graph tells of its tensors, operators and modules, in plain frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
