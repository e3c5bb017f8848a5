"""Running a model, and telling how far two results are apart."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from torchpruner_core.cut_result import CutResult
from torchpruner_core.exporting import export_onnx
from torchpruner_core.onnx_pruning import masked_onnx
from torchpruner_core.pruning.forward.boundaries import flatten_outputs
from torchpruner_core.untouched import held_tensors

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a call."""


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy; torch refuses to copy what was computed, such as a masked weight or a cache."""
    memo: dict[int, Any] = {id(x): x.detach().clone() for x in held_tensors(model) if not x.is_leaf}
    return copy.deepcopy(model, memo)


def arguments(inputs: Any) -> Arguments:
    """Return inputs (a tensor, a tuple of arguments, a dict of them by name) as a call has them."""
    inputs = tree_map(lambda x: torch.as_tensor(x) if isinstance(x, np.ndarray) else x, inputs)
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), {}


def run(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], seed: int
) -> list[torch.Tensor]:
    """Return copies of the tensors that a model gives, in order."""
    torch.manual_seed(seed)
    return [x.clone() for x in flatten_outputs(model(*args, **kwargs))]


def difference(expected: list[torch.Tensor], received: list[torch.Tensor]) -> tuple[float, float]:
    """Return the largest difference over all outputs, absolute and relative to the largest value."""
    absolute = relative = 0.0
    for x, y in zip(expected, received, strict=True):
        if x.numel() == 0:
            continue
        if x.is_complex() and y.is_complex():
            x, y = torch.view_as_real(x), torch.view_as_real(y)
        if not x.is_floating_point():
            gap = float((x.to(torch.float64) - y.to(torch.float64)).abs().max())
            absolute, relative = max(absolute, gap), max(relative, gap)
            continue
        x, y = x.double(), y.double()
        same = (x == y) | (x.isnan() & y.isnan())
        gap = float(torch.where(same, torch.zeros_like(x), (x - y).abs()).max())
        finite = x[x.isfinite()].abs()
        scale = float(finite.max()) if finite.numel() else 1.0
        if gap != gap:
            return float("nan"), float("inf")
        absolute, relative = max(absolute, gap), max(relative, gap / max(scale, 1e-12))
    return absolute, relative


HOLDS = 1e-2
"""How far a program may be from its model on other inputs, and be only rounded otherwise."""


class MaskedOnnx:
    """The ONNX model that computes the listed normalisations over the kept slices only.

    Raises what the exporter raises, and ``ImportError`` where onnxruntime is not installed.
    """

    def __init__(self, model: nn.Module, cut: CutResult, inputs: Any) -> None:
        self._data = export_onnx(model, inputs)
        self._session = _session(masked_onnx(self._data, cut))

    def run(self, inputs: Any) -> list[torch.Tensor]:
        """Return its outputs, in order."""
        return self._outputs(self._session, inputs)

    def check_that_it_holds(self, inputs: Any, expected: list[torch.Tensor]) -> None:
        """Raise ``ValueError`` where the program, unmasked, is not the model on other inputs.

        So it is where data decides what was written down as the program was made: the tokens that
        each expert gets, for instance.
        """
        found = self._outputs(_session(self._data), inputs)
        same = [x.shape for x in found] == [x.shape for x in expected]
        off = difference([x.cpu() for x in expected], found)[1] if same else float("inf")
        if off > HOLDS:
            raise ValueError(
                f"its program holds for the inputs of its export alone, and is off by {off:.2g} on others"
            )

    def _outputs(self, session: Any, inputs: Any) -> list[torch.Tensor]:
        args, kwargs = arguments(inputs)
        tensors = flatten_outputs((args, kwargs))
        names = [node.name for node in session.get_inputs()]
        feeds = dict(zip(names, (x.detach().cpu().numpy() for x in tensors), strict=False))
        feeds.update({k: v.detach().cpu().numpy() for k, v in kwargs.items() if k in names})
        results = session.run(None, feeds)
        return [torch.from_numpy(np.ascontiguousarray(x)) for x in results]


def _session(data: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
