"""The same cuts tried with Torch-Pruning, bounded in time: what does a user of it see?"""

from __future__ import annotations

import copy
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from benchmarks.zoo.module_check import outputs_of
from benchmarks.zoo.onnx_check import TOLERANCE
from benchmarks.zoo.specimen import Inputs

Cut = Mapping[str, Any]


class _OutOfTimeError(Exception):
    """Torch-Pruning was not done in time."""


def try_cuts(model: nn.Module, inputs: Inputs, cuts: Sequence[Cut], seconds: float) -> list[str]:
    """Return what became of each cut.

    ``equal`` to the network with the slices of its group at zero, ``differs``, ``no group``, ``fails:
    why``, or ``not finished``.
    """
    results = []
    for cut in cuts:
        try:
            with _limit(seconds / max(len(cuts), 1)):
                results.append(_try(model, inputs, cut))
        except _OutOfTimeError:
            results.append("not finished")
        except Exception as error:
            text = (str(error).strip().splitlines() or [""])[0]
            results.append(f"fails: {type(error).__name__}: {text[:160]}")
    return results


def _try(model: nn.Module, inputs: Inputs, cut: Cut) -> str:
    import torch_pruning

    pruned, masked = copy.deepcopy(model), copy.deepcopy(model)
    example = dict(inputs) if isinstance(inputs, Mapping) else inputs
    graph = torch_pruning.DependencyGraph().build_dependency(pruned, example)
    path = str(cut["node"]).removeprefix("self.").rpartition(".")[0]
    layer = pruned.get_submodule(path)
    prune = _pruning_function(torch_pruning, layer)
    if prune is None:
        return "no group"
    group = graph.get_pruning_group(layer, prune, idxs=list(cut["index"]))
    names = {id(module): name for name, module in pruned.named_modules()}
    removed = [
        (
            names.get(id(dep.target.module), ""),
            graph.is_out_channel_pruning_fn(dep.handler),
            list(idxs),
        )
        for dep, idxs in group
    ]
    group.prune()
    received = outputs_of(pruned, inputs)
    with torch.no_grad():
        for name, is_out, index in removed:
            _mask(masked.get_submodule(name), is_out, index)
    expected = outputs_of(masked, inputs)
    return "equal" if _close(expected, received) else "differs"


def _pruning_function(torch_pruning: Any, layer: nn.Module) -> Any:
    if isinstance(layer, nn.Linear):
        return torch_pruning.prune_linear_out_channels
    if isinstance(layer, nn.Embedding):
        return torch_pruning.prune_embedding_out_channels
    if isinstance(layer, nn.modules.conv._ConvNd):
        return torch_pruning.prune_conv_out_channels
    return None


def _mask(module: nn.Module, is_out: bool, index: list[int]) -> None:
    for name, tensor in [
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
    ]:
        dim = 0 if is_out or tensor.ndim < 2 else 1
        if isinstance(module, nn.modules.conv._ConvTransposeNd | nn.Embedding) and tensor.ndim > 1:
            dim = 1 - dim
        if (not is_out and tensor.ndim < 2 and name == "bias") or "var" in name or not tensor.ndim:
            continue
        tensor.data.index_fill_(dim, torch.tensor([i for i in index if i < tensor.shape[dim]]), 0)


def _close(expected: list[torch.Tensor], received: list[torch.Tensor]) -> bool:
    if [x.shape for x in expected] != [x.shape for x in received]:
        return False
    for want, got in zip(expected, received, strict=True):
        scale = float(want.abs().max()) if want.numel() else 1.0
        if want.is_floating_point() and float((want - got).abs().max()) > TOLERANCE * max(
            scale, 1e-12
        ):
            return False
    return True


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
