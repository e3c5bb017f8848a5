"""A network that grows layer by layer, as an ONNX file.

Layers are in :mod:`image_layers` and :mod:`token_layers`, the strategies in :mod:`networks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st

from tests.core.operators.brute_force import ints, model, node

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass
class Network:
    """Nodes and stored tensors so far; ``value`` is the current tensor, ``earlier`` those before."""

    draw: Draw
    value: str = "x"
    shape: tuple[int, ...] = ()
    nodes: list[Any] = field(default_factory=list)
    stored: dict[str, Any] = field(default_factory=dict)
    earlier: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def weight(self, *shape: int) -> str:
        """Store a random float tensor under a name like a layer's; nothing in it is near zero."""
        name = f"layer{len(self.nodes)}.weight{len(self.stored)}"
        rng = np.random.default_rng(len(self.stored))
        fan = np.sqrt(np.prod(shape[1:]))
        self.stored[name] = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape) / fan
        return name

    def constant(self, *values: int) -> str:
        name = f"constant{len(self.stored)}"
        self.stored[name] = ints(*values)
        return name

    def target(self, value: str, leading: tuple[int, ...], *rest: int) -> str:
        """Return a shape: sizes that ``value`` begins with, read off it or written, and others."""
        if self.draw(st.booleans()):
            return self.constant(*leading, *rest)
        current = self.value, self.shape
        read = self.apply("Shape", [value], (), start=0, end=len(leading))
        made = self.apply("Concat", [read, self.constant(*rest)], (), axis=0)
        self.value, self.shape = current
        return made

    def quotient(self, value: str, parts: int, size: int) -> str:
        """Return ``[size]``: written, or the last size of ``value`` divided into ``parts``."""
        if self.draw(st.booleans()):
            return self.constant(size)
        current = self.value, self.shape
        sizes = self.apply("Shape", [value], ())
        last = self.apply("Gather", [sizes, self.constant(-1)], ())
        made = self.apply("Div", [last, self.constant(parts)], ())
        self.value, self.shape = current
        return made

    def apply(self, kind: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(node(kind, inputs, [name], **attributes))
        self.value, self.shape = name, shape
        return name

    def remember(self) -> None:
        self.earlier.append((self.value, self.shape))

    def data(self) -> bytes:
        return model(
            self.nodes, self.inputs, [self.value], self.stored, shapes={self.value: self.shape}
        )


def shown(data: bytes) -> str:
    """Return a network as text, a line an operator: what a failing example reports."""
    loaded = onnx.load_model_from_string(data)
    stored = {}
    for tensor in loaded.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        stored[tensor.name] = value.tolist() if value.dtype == np.int64 else list(value.shape)
    lines = []
    for item in loaded.graph.node:
        read = ", ".join(f"{name}{stored.get(name, '')}" for name in item.input)
        given = {a.name: onnx.helper.get_attribute_value(a) for a in item.attribute}
        lines.append(f"{', '.join(item.output)} = {item.op_type}({read}) {given or ''}")
    return "\n".join(lines)
