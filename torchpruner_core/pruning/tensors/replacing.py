"""Giving a tensor another shape while autograd remembers the one it has.

A parameter must stay the object that optimizers, hooks and tied names hold. Its *gradient
accumulator*, the autograd node in which backward passes end, is made at the first forward, knows the
parameter's shape, and lives as long as any graph does: the ``loss`` of the last step is enough. So
the accumulator is let go of with the old values, and the next forward makes a new one.

Graphs that were recorded before are of no use afterwards. Their backward is stopped with an error,
whichever way it comes: by the version of the values that they saved, or at the old accumulator.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchpruner_core.errors import StaleGraphError


def replace_data(
    tensor: torch.Tensor, data: torch.Tensor, grad: torch.Tensor | None
) -> Callable[[], None]:
    """Give ``tensor`` other values and another gradient, keeping the object.

    Returns what undoes it; graphs that were recorded before are good again then.
    """
    old_data, old_grad = tensor.data, tensor.grad if tensor.is_leaf else None
    version = version_of(tensor)
    if _same_kind(tensor, data) or tensor.is_inference():
        _put(tensor, data, grad)
    else:
        _refuse_old_graphs(tensor)
        _forget_accumulator(tensor)
        _put(tensor, data, grad)
        torch.autograd.graph.increment_version(tensor)

    def undo() -> None:
        put_back(tensor, old_data, old_grad, version)

    return undo


def put_back(
    tensor: torch.Tensor, data: torch.Tensor, grad: torch.Tensor | None, version: int
) -> None:
    """Give ``tensor`` the values, gradient and version that it had before."""
    if not _same_kind(tensor, data) and not tensor.is_inference():
        _forget_accumulator(tensor)
    _put(tensor, data, grad)
    if not tensor.is_inference():
        torch._C._autograd._unsafe_set_version_counter((tensor,), (version,))


def version_of(tensor: torch.Tensor) -> int:
    """Return how often autograd saw a tensor's values change; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def renew_autograd(tensor: torch.Tensor) -> None:
    """Make up for somebody else's ``tensor.data = ...``: as if :func:`replace_data` had done it.

    A gradient that was left behind in the old shape goes.
    """
    if tensor.is_inference():
        return
    data, grad = tensor.data, tensor.grad if tensor.is_leaf else None
    if grad is not None and grad.shape != data.shape:
        grad = None
    _refuse_old_graphs(tensor)
    _forget_accumulator(tensor)
    _put(tensor, data, grad)
    torch.autograd.graph.increment_version(tensor)


def _same_kind(tensor: torch.Tensor, data: torch.Tensor) -> bool:
    return (tensor.shape, tensor.dtype, tensor.device) == (data.shape, data.dtype, data.device)


def _put(tensor: torch.Tensor, data: torch.Tensor, grad: torch.Tensor | None) -> None:
    if tensor.is_leaf:
        # A gradient must have its tensor's shape at every moment, so it goes first and comes last.
        tensor.grad = None
    tensor.data = data
    if grad is not None:
        tensor.grad = grad


def _forget_accumulator(tensor: torch.Tensor) -> None:
    """Let autograd make a new accumulator for a leaf at its next use.

    PyTorch drops it where other values come with another dtype (``VariableHooks::set_data``), and at
    no other time; so the tensor has another dtype for a moment, and no elements.
    """
    if _can_have_gradient(tensor):
        other = torch.float16 if tensor.dtype == torch.float32 else torch.float32
        _put(tensor, torch.empty(0, dtype=other, device=tensor.device), None)


def _refuse_old_graphs(tensor: torch.Tensor) -> None:
    """Make the present accumulator refuse gradients that no longer have their parameter's shape."""
    if not _can_have_gradient(tensor):
        return
    wanted = tensor.requires_grad
    tensor.requires_grad_(True)  # frozen since its forward, it has an accumulator all the same
    node = torch.autograd.graph.get_gradient_edge(tensor).node
    tensor.requires_grad_(wanted)
    parameter = weakref.ref(tensor)

    def refuse(grads: Sequence[torch.Tensor | None]) -> None:
        now: Any = parameter()
        for grad in grads:
            if now is not None and grad is not None and grad.shape != now.shape:
                raise StaleGraphError(
                    "this backward pass belongs to a forward that ran when a parameter of shape "
                    f"{tuple(now.shape)} still had the shape {tuple(grad.shape)}: run the forward "
                    "again, then call backward()",
                    expected=list(now.shape),
                    received=list(grad.shape),
                )

    node.register_prehook(refuse)


def _can_have_gradient(tensor: torch.Tensor) -> bool:
    return tensor.is_leaf and (tensor.is_floating_point() or tensor.is_complex())
