"""What a model costs as a polynomial in the widths of its axes: exact before anything is cut.

FLOPs are the sum over operators of a factor times a product of widths; so are parameters, bytes and
the bytes of the activations that are alive at one step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.graph_data import GraphData

Int = NDArray[np.int64]
Float = NDArray[np.float64]

SHARES_STORAGE = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})


class Products:
    """Products of widths: row ``k`` is ``factor[k]`` times the widths of the classes in it."""

    def __init__(self, rows: Iterable[tuple[float, Sequence[int]]], classes: int) -> None:
        rows = list(rows)
        depth = max((len(c) for _, c in rows), default=0)
        self.classes = classes
        self.factor = np.array([factor for factor, _ in rows])
        # The class after the last has the width 1 always: it fills short rows.
        self.index = np.full((len(rows), depth), classes, dtype=np.int64)
        for k, (_, owners) in enumerate(rows):
            self.index[k, : len(owners)] = owners

    @classmethod
    def merged(cls, rows: Iterable[tuple[float, Sequence[int]]], classes: int) -> Products:
        """Return the products with rows over the same classes added up."""
        total: dict[tuple[int, ...], float] = {}
        for factor, owners in rows:
            key = tuple(sorted(owners))
            total[key] = total.get(key, 0) + factor
        return cls(((factor, key) for key, factor in total.items()), classes)

    def values(self, widths: Int) -> NDArray[Any]:
        """Return each product, shape ``(..., rows)``, for widths of shape ``(..., classes + 1)``."""
        result: NDArray[Any] = self.factor * widths[..., self.index].prod(axis=-1)
        return result

    def gradient(self, widths: Int, weight: Float | None = None) -> Float:
        """Return the derivative of the weighted sum by each width, shape ``(classes + 1,)``."""
        taken = widths[self.index].astype(np.float64)
        product = self.factor * taken.prod(axis=1)
        if weight is not None:
            product = product * weight
        by_width = np.zeros(self.classes + 1)
        np.add.at(by_width, self.index, product[:, None] / taken)
        by_width[-1] = 0.0
        return by_width


class Resource(Protocol):
    """One cost: its value for some widths, and where it presses when it is above a limit."""

    @property
    def products(self) -> Products:
        """The products of widths that it is made of."""
        ...

    @property
    def divisor(self) -> int:
        """What their sum is divided by."""
        ...

    def value(self, widths: Int) -> float:
        """Return the cost, for widths of shape ``(classes + 1,)``."""
        ...

    def values(self, widths: Int) -> NDArray[Any]:
        """Return the costs of many widths at once, shape ``(...)`` for ``(..., classes + 1)``."""
        ...

    def pressure(self, widths: Int, limit: float) -> Float:
        """Return by how much a slice of each class lowers what is above ``limit``."""
        ...


@dataclass(frozen=True, eq=False)
class Sum:
    """A cost that is one sum of products, divided by ``divisor`` and rounded up."""

    products: Products
    divisor: int = 1

    def value(self, widths: Int) -> float:
        return self.values(widths).item()  # type: ignore[no-any-return]

    def values(self, widths: Int) -> NDArray[Any]:
        total: NDArray[Any] = self.products.values(widths).sum(axis=-1)
        return total if self.divisor == 1 else -(-total // self.divisor)

    def pressure(self, widths: Int, limit: float) -> Float:
        return self.products.gradient(widths) / self.divisor


@dataclass(frozen=True, eq=False)
class Peak:
    """The most that is alive at one step: each product is alive from ``birth`` to ``death``."""

    products: Products
    birth: Int
    death: Int
    steps: int
    divisor: int = 8

    def alive(self, widths: Int) -> NDArray[Any]:
        """Return the bytes alive at each step, shape ``(..., steps)``."""
        sizes = self.products.values(widths)
        change = np.zeros((*sizes.shape[:-1], self.steps + 1), dtype=sizes.dtype)
        np.add.at(change.T, self.birth, sizes.T)
        np.subtract.at(change.T, self.death + 1, sizes.T)
        alive: NDArray[Any] = -(-np.cumsum(change, axis=-1)[..., :-1] // self.divisor)
        return alive

    def value(self, widths: Int) -> float:
        return self.alive(widths).max(initial=0).item()  # type: ignore[no-any-return]

    def values(self, widths: Int) -> NDArray[Any]:
        result: NDArray[Any] = self.alive(widths).max(axis=-1, initial=0)
        return result

    def pressure(self, widths: Int, limit: float) -> Float:
        above = np.concatenate([[0], np.cumsum(self.alive(widths) > limit)])
        crowded = (above[self.death + 1] - above[self.birth]).astype(np.float64)
        return self.products.gradient(widths, crowded) / self.divisor


class Costs:
    """The costs of one graph by name; each is made when it is first asked for."""

    def __init__(self, graph: GraphData) -> None:
        self.graph = graph
        self.classes = len(graph.coupling.class_length)
        self.widths: Int = np.append(graph.coupling.class_length, 1)
        """The widths before a cut, shape ``(classes + 1,)``."""

    def __getitem__(self, name: str) -> Resource:
        return getattr(self, f"_{name}")  # type: ignore[no-any-return]

    @cached_property
    def _flops(self) -> Sum:
        rows = [(factor, owners) for _, factor, owners in self.graph.coupling.costs]
        return Sum(Products.merged(rows, self.classes))

    @cached_property
    def _macs(self) -> Sum:
        return Sum(self._flops.products, 2)

    @cached_property
    def _params(self) -> Sum:
        rows = [
            (1, self.graph.classes_of(name))
            for name, node in self.graph.nodes.items()
            if node.kind == "parameter" and node.alias_of is None
        ]
        return Sum(Products.merged(rows, self.classes))

    @cached_property
    def _bytes(self) -> Sum:
        rows = [
            (bits(node.dtype), self.graph.classes_of(name))
            for name, node in self.graph.nodes.items()
            if node.kind in ("parameter", "buffer") and node.alias_of is None
        ]
        return Sum(Products.merged(rows, self.classes), 8)

    @cached_property
    def _memory(self) -> Peak:
        graph = self.graph
        step = {name: k for k, name in enumerate(graph.operators)}
        root: dict[str, str] = {name: name for name in graph.inputs}
        birth: dict[str, int] = dict.fromkeys(graph.inputs, 0)
        death: dict[str, int] = {}
        for name, operator in graph.operators.items():
            if not any(source in root for source in operator.inputs):
                continue  # it computes a constant of the program
            source = next(iter(operator.inputs), "")
            shared = operator.type in SHARES_STORAGE and source in root
            for output in operator.outputs:
                root[output] = root[source] if shared else output
                birth.setdefault(root[output], step[name])
        for name, owner in root.items():
            users = [step[user] for user in graph.nodes[name].consumers]
            last = len(step) - 1 if name in graph.outputs else max(users, default=0)
            death[owner] = max(death.get(owner, birth[owner]), last)
        names = list(birth)
        rows = [(bits(graph.nodes[name].dtype), graph.classes_of(name)) for name in names]
        return Peak(
            Products(rows, self.classes),
            np.array([birth[name] for name in names], dtype=np.int64),
            np.array([death[name] for name in names], dtype=np.int64),
            max(len(step), 1),
        )


def bits(dtype: str) -> int:
    """Return the bits of one element.

    >>> bits("float32"), bits("bfloat16"), bits("int4"), bits("bool"), bits("float8_e4m3fn")
    (32, 16, 4, 8, 8)
    """
    found = re.search(r"\d+", dtype)
    return int(found[0]) if found else 8
