"""A model that was run is as it was: attributes, containers, buffers, modes, random numbers."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

_CONTAINERS = (dict, OrderedDict, list, set, deque)
_DEPTH = 4


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put back every attribute of every module, and what plain containers among them hold.

    Contents of tensors are the recorder's business. Random number generators and PyTorch's
    switches that a forward may flip are put back too.
    """
    kept: list[tuple[Any, Any]] = []
    seen: set[int] = set()
    for module in model.modules():
        _keep(vars(module), kept, seen, 0)
    fast = torch.backends.mha.get_fastpath_enabled()
    grad = torch.is_grad_enabled()
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    python, numbers = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        random.setstate(python)
        np.random.set_state(numbers)
        for container, before in kept:
            _put_back(container, before)


def _keep(container: Any, kept: list[tuple[Any, Any]], seen: set[int], depth: int) -> None:
    if id(container) in seen:
        return
    seen.add(id(container))
    kept.append(
        (container, type(container)(container) if type(container) is not dict else dict(container))
    )
    if depth == _DEPTH:
        return
    for each in container.values() if isinstance(container, dict) else container:
        if type(each) in _CONTAINERS:
            _keep(each, kept, seen, depth + 1)


def _put_back(container: Any, before: Any) -> None:
    if isinstance(container, dict):
        same = len(container) == len(before) and all(
            a is b and container[a] is before[b] for a, b in zip(container, before, strict=True)
        )
        if not same:
            container.clear()
            container.update(before)
    elif isinstance(container, set):
        if container != before:
            container.clear()
            container.update(before)
    elif len(container) != len(before) or any(
        a is not b for a, b in zip(container, before, strict=True)
    ):
        container.clear()
        container.extend(before)
