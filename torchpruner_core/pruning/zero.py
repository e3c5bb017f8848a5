"""``set_zero`` and ``recovery_zero``: mask a model instead of shortening it."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from torchpruner_core.cut_dict import Cut, fingerprint, read_module_cut
from torchpruner_core.exporting.unwrapping import unwrap
from torchpruner_core.pruning.change_list import under_every_name
from torchpruner_core.pruning.context import (
    CutContext,
    TensorRecord,
    check_context,
    forget,
    remember,
)
from torchpruner_core.pruning.module_pruners.base import (
    BasePruner,
    TensorPruner,
    naming_failures,
)
from torchpruner_core.pruning.module_pruners.registry import module_pruner_reg
from torchpruner_core.pruning.tensors import slices
from torchpruner_core.pruning.tensors.journal import Journal
from torchpruner_core.pruning.tensors.targets import LocalModel, in_mode_of_model, split_name

ModelT = TypeVar("ModelT", bound=nn.Module)


@in_mode_of_model
def set_zero(model: ModelT, cut_dict: Cut) -> tuple[ModelT, CutContext]:
    """Set the slices that a cut lists to zero, in place; shapes, attributes and gradients stay.

    Returns the same model and the context that :func:`recovery_zero` needs. Raises a
    :class:`ReplayError`, and leaves the model as it was.
    """
    root = unwrap(model)
    cut = read_module_cut(cut_dict)
    local = LocalModel(root)
    targets = [t for t in local.find(cut) if not cut.renumbers.keys() & set(t.names)]
    everywhere = under_every_name(cut, targets)
    context = CutContext("zero", fingerprint(cut))
    journal = Journal()
    try:
        for target in targets:
            journal.overwrite(target.tensor)
            removed = _taken(target.tensor, target.axes)
            context.tensors[target.name] = TensorRecord(removed, target.before, target.before)
        for name in dict.fromkeys(split_name(n)[0] for n in everywhere.terminal):
            pruner_class = module_pruner_reg.get(type(local.modules[name]))
            if not _overrides(pruner_class, "set_zero"):
                continue
            assert pruner_class is not None
            journal.lend(local.modules[name])
            with naming_failures(pruner_class, "set_zero", name, "put back"):
                _, user_context = pruner_class(name).set_zero(local.modules[name], everywhere)
            context.custom[name] = (pruner_class, user_context)
        for target in targets:
            slices.set_zero_tensor(target.tensor, target.axes)
    except BaseException:
        journal.rollback()
        raise
    remember(root, context)
    return model, context


@in_mode_of_model
def recovery_zero(model: ModelT, cut_dict: Cut, param_context: CutContext) -> ModelT:
    """Undo :func:`set_zero`: the zeroed values come back bit for bit.

    Returns the same model. Raises :class:`ContextMismatchError`, and leaves the model as it was.
    """
    root = unwrap(model)
    cut = read_module_cut(cut_dict)
    local = LocalModel(root)
    context = check_context(local, cut, param_context, "zero")
    axes = context.axes(cut)
    journal = Journal()
    try:
        for name, (pruner_class, user_context) in context.custom.items():
            if _overrides(pruner_class, "recovery_zero"):
                journal.lend(local.modules[name])
                everywhere = under_every_name(cut, local.find(cut))
                with naming_failures(pruner_class, "recovery_zero", name, "put back"):
                    pruner_class(name).recovery_zero(local.modules[name], everywhere, user_context)
        for name, record in context.tensors.items():
            journal.overwrite(local.tensors[name])
            slices.recovery_zero_tensor(local.tensors[name], axes[name], record.removed)
    except BaseException:
        journal.rollback()
        raise
    forget(root, context)
    return model


def _taken(
    tensor: torch.Tensor, axes: list[slices.NDArray[slices.np.int64] | None]
) -> slices.RemovedSlices:
    """Return the values that zeroing will overwrite; each is what is there before its axis is zeroed."""
    copy = tensor.detach().clone()
    _, removed = slices.set_zero_tensor(copy, axes)
    return removed


def _overrides(pruner_class: type[BasePruner] | None, method: str) -> bool:
    if pruner_class is None or issubclass(pruner_class, TensorPruner):
        return False
    return getattr(pruner_class, method) is not getattr(BasePruner, method)
