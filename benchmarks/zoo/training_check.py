"""Training through a cut: one step before it, one after it, one after its recovery.

As people write the loop: the loss of each step is alive when the next cut or recovery is made.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from benchmarks.zoo.module_check import cut_inputs
from benchmarks.zoo.specimen import Inputs
from torchpruner_core.cut_result import CutResult
from torchpruner_core.errors import ReplayError, StaleStateWarning
from torchpruner_core.pruning import (
    recovery_cut,
    recovery_optimizer,
    set_cut,
    set_cut_optimizer,
)
from torchpruner_core.pruning.forward.comparison import copied

RATE = 1e-5
"""Small enough that random weights stay finite."""


def check(
    model: nn.Module, cut: CutResult, inputs: Inputs, correct_forward: bool
) -> dict[str, str]:
    """Return ``{"later": state}``, with a reason where it is not ``trains``.

    ``untrainable``: the model as it is does not take a training step on these inputs, as one that
    wants targets. ``told``: a later step fails, as a warning of the cut said, or the cut is refused in
    training mode. ``crashes``: it fails without a word.
    """
    subject = copied(model).train()
    optimizer = torch.optim.SGD(subject.parameters(), lr=RATE, momentum=0.9)
    try:
        batch, loss = _first_step(subject, optimizer, inputs)
    except Exception as error:
        return {"later": "untrainable", "later_reason": _said(error)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        held = [loss]
        try:
            try:
                _, context = set_cut(subject, cut, inputs=inputs, correct_forward=correct_forward)
            except ReplayError as error:  # said before anything was touched
                return {"later": "told", "later_reason": _said(error)}
            _, state = set_cut_optimizer(subject, optimizer, cut)
            held.append(_step(subject, optimizer, _less(cut, batch)))
            recovery_cut(subject, cut, context)
            recovery_optimizer(subject, optimizer, cut, state)
            held.append(_step(subject, optimizer, batch))
        except Exception as error:
            told = any(issubclass(w.category, StaleStateWarning) for w in caught)
            return {"later": "told" if told else "crashes", "later_reason": _said(error)}
    return {"later": "trains"}


def _first_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Inputs
) -> tuple[Inputs, torch.Tensor]:
    """Take a step on the inputs, or on two copies of them: a batch norm needs more than one value."""
    try:
        return inputs, _step(model, optimizer, inputs)
    except Exception:
        twice: Any = tree_map(lambda x: torch.cat([x, x]) if x.dim() else x, inputs)
        return twice, _step(model, optimizer, twice)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Inputs) -> torch.Tensor:
    torch.manual_seed(0)
    optimizer.zero_grad()
    outputs = model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    trained = [
        x.float().square().mean()
        for x in _tensors(outputs)
        if x.requires_grad and x.is_floating_point() and x.numel()
    ]
    loss = torch.stack(trained).sum()
    loss.backward()
    optimizer.step()
    return loss


def _tensors(outputs: Any) -> list[torch.Tensor]:
    if hasattr(outputs, "to_tuple"):
        outputs = outputs.to_tuple()
    return [x for x in tree_leaves(outputs) if isinstance(x, torch.Tensor)]


def _less(cut: CutResult, batch: Inputs) -> Inputs:
    return cut_inputs(cut, batch) if cut.touches_inputs else batch


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
