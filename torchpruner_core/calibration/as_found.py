"""Leaving a model as it was found, whatever its forward did and however the run ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

STORES = ("_parameters", "_buffers", "_modules")


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first tensor; the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def as_found(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into evaluation mode, and at the end put everything back.

    Modes, buffers, attributes that a forward sets or deletes, which parameters ask for gradients, and the
    random numbers of Python's caller (CPU and the model's device) are the same afterwards, after an exception
    too. Meanwhile compiled parts run eagerly, and fused layers one operator after another. Gradients are not
    touched, since nothing here accumulates any.
    """
    modules = list(model.modules())
    attributes = [dict(module.__dict__) for module in modules]
    stores = [{s: dict(module.__dict__[s]) for s in STORES} for module in modules]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    device = device_of(model)
    devices = [device] if device.type == "cuda" else []
    fast_path = torch.backends.mha.get_fastpath_enabled()
    libraries = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules)
    try:
        with torch.random.fork_rng(devices=devices), torch.compiler.set_stance("force_eager"):
            # The fused encoder layer is one opaque operator: nobody sees what its weights read.
            torch.backends.mha.set_fastpath_enabled(False)
            if recurrent:  # one operator for all steps, too
                torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
                torch.backends.cudnn.enabled = False
            model.eval()
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled = libraries
        for module, own, kept in zip(modules, attributes, stores, strict=True):
            _put_back(module, own, kept)
        with torch.no_grad():
            for buffer, values in buffers:
                if buffer.layout is not torch.strided or not torch.equal(
                    _bytes(buffer), _bytes(values)
                ):
                    buffer.detach().copy_(values)
        for parameter, asked in wanted:
            if parameter.requires_grad != asked:
                parameter.requires_grad_(asked)


def _put_back(
    module: nn.Module, attributes: dict[str, Any], stores: dict[str, dict[str, Any]]
) -> None:
    for name, kept in stores.items():
        store = attributes[name]
        if list(store) != list(kept) or any(store[key] is not kept[key] for key in kept):
            store.clear()
            store.update(kept)
    now = module.__dict__
    if list(now) != list(attributes) or any(now[k] is not v for k, v in attributes.items()):
        now.clear()
        now.update(attributes)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    # NaN differs from itself, and bytes do not.
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
