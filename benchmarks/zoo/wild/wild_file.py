"""One ONNX file of the family, and the inputs it is run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.cut_result import TensorSpec
from torchpruner_core.graph.dtypes import dtype_name, np_dtype
from torchpruner_core.importing.input_shapes import open_inputs, propose

Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class WildFile:
    """``read`` returns the file's bytes.

    ``shapes`` are those of inputs that the file leaves open and the proposal does not fit; ``values`` are
    inputs that always hold one value, and are told to the analysis; ``highest`` bounds integers, by input
    name (8 where nothing is said).
    """

    name: str
    read: Callable[[], bytes]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    values: Mapping[str, int] = field(default_factory=dict)
    highest: Mapping[str, int] = field(default_factory=dict)
    tolerance: float = 1e-4
    family: str = "wild"

    @property
    def key(self) -> str:
        """A file name for what is known about this file."""
        return f"{self.family}/{self.name}".replace("/", "__").replace(" ", "_")

    def inputs(self, model: Any) -> tuple[dict[str, TensorSpec], Feeds]:
        """Return what the analysis is told of the inputs, and arrays to run the model on."""
        infos = open_inputs(model)
        shapes = propose(infos) | dict(self.shapes)
        rng = np.random.default_rng(0)
        specs, feeds = {}, {}
        for info in infos:
            name, shape = info.name, shapes[info.name]
            dtype = dtype_name(info.type.tensor_type.elem_type)
            fixed = self.values.get(name)
            specs[name] = TensorSpec(name, shape, dtype, None if fixed is None else (fixed,))
            feeds[name] = self._array(rng, name, shape, np_dtype(dtype))
        return specs, feeds

    def _array(
        self, rng: np.random.Generator, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        if name in self.values:
            return np.full(shape, self.values[name], dtype=dtype)
        if dtype.kind == "b":
            return np.ones(shape, dtype=dtype)
        if dtype.kind in "iu":
            return rng.integers(0, self.highest.get(name, 8), shape).astype(dtype)
        return rng.standard_normal(shape).astype(dtype)
