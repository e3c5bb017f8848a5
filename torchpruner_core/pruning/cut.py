"""``set_cut`` and ``recovery_cut``: shorten a model for real, and put it back.

``set_cut`` works in three steps: everything is resolved and checked on the model as it is; where a
constant in ``forward()`` must change, a shadow of the model rehearses the pruned forward; only then
are tensors replaced. Whatever fails on the way, the model is as it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from torchpruner_core.cut_dict import Cut, fingerprint, read_module_cut
from torchpruner_core.cut_result import CutResult
from torchpruner_core.errors import ModulePrunerError, ReplayError
from torchpruner_core.exporting.unwrapping import unwrap
from torchpruner_core.pruning.change_list import Plan, make_plan
from torchpruner_core.pruning.context import (
    CutContext,
    TensorRecord,
    check_context,
    forget,
    mark,
    remember,
)
from torchpruner_core.pruning.forward.candidates import Change
from torchpruner_core.pruning.forward.corrections import (
    CorrectedForward,
    Correction,
    CorrectionNote,
    correct,
)
from torchpruner_core.pruning.forward.lazily import unmake
from torchpruner_core.pruning.forward.literals import find_changes
from torchpruner_core.pruning.forward.proof import TOLERANCE, difference
from torchpruner_core.pruning.forward.rehearsal import Stage
from torchpruner_core.pruning.forward.verification import Verification
from torchpruner_core.pruning.mentions import mentions
from torchpruner_core.pruning.model_config import (
    adopted,
    follow_config,
    state_shapes,
    warn_of_stale_config,
)
from torchpruner_core.pruning.module_pruners.base import BasePruner, naming_failures
from torchpruner_core.pruning.repeated_sizes import Doubt, follow_repeated, warn_of_doubts
from torchpruner_core.pruning.tensors import slices
from torchpruner_core.pruning.tensors.journal import AttributeChange, Journal, get_attribute
from torchpruner_core.pruning.tensors.positions import Positions, renumber
from torchpruner_core.pruning.tensors.targets import (
    LocalModel,
    Target,
    in_mode_of_model,
    module_path,
)
from torchpruner_core.pruning.unread import Followed, follow_unread, warn_of, warn_of_training
from torchpruner_core.pruning.wrappers import check_wrappers, refresh_wrappers
from torchpruner_core.untouched import untouched

ModelT = TypeVar("ModelT", bound=nn.Module)


@in_mode_of_model
def set_cut(
    model: ModelT,
    cut_dict: Cut,
    *,
    inputs: Any = None,
    correct_forward: bool = False,
    verify: bool = False,
) -> tuple[ModelT, CutContext]:
    """Remove the slices that a cut lists from a model, in place.

    ``cut_dict`` is what ``cut_analysis`` returned for this model. ``inputs`` (a tensor, a tuple, or a
    dict of keyword arguments) replaces the inputs that the cut names, where a forward must be
    rehearsed and those are not enough.

    A constant that ``forward()`` holds as a literal cannot change, and the cut is refused; with
    ``correct_forward`` the module's forward is wrapped, and the literal replaced as it runs.

    With ``verify`` the model is run before and after, on ``inputs`` (or on random ones of the shapes
    that the cut names) and on a second random batch of the same shapes: what it computes must be what
    it computes with the slices at zero, or :class:`VerificationError` has the numbers and the model is
    as it was. ``context.verified`` has them where it is right. This takes a copy of the model's
    memory, and six forward passes.

    Parameters keep their identity: the same ``nn.Parameter`` objects become smaller, gradients
    included, so an optimizer, hooks and tied weights go on working (its state follows with
    ``set_cut_optimizer``). Device, dtype, ``requires_grad`` and memory layout stay. Attributes that
    repeat a size (``out_channels``, ``num_heads``, a Hugging Face config) follow.

    Returns the same model and the context that :func:`recovery_cut` needs. Raises a
    :class:`ReplayError`, and leaves the model as it was: :class:`CutMismatchError`,
    :class:`ModulePrunerError`, :class:`LiteralInForwardError`, :class:`UnsupportedModuleError`,
    :class:`VerificationError`.
    """
    root = unwrap(model)
    cut = read_module_cut(cut_dict)
    check_wrappers(model)
    plan, followed = _plan(root, cut, inputs)
    with untouched(root):  # a rehearsal has tensors without values, which nothing must keep
        stage = Stage(root, plan, inputs) if plan.needs_rehearsal else None
        verification = Verification(root, cut, inputs) if verify else None
    context = CutContext("cut", fingerprint(cut), followed=followed.terminal)
    journal = Journal()
    failure = ""
    try:
        for name, module, pruner in plan.custom:
            _run_custom(name, module, pruner, plan, journal, context)
        attributes = list(plan.attributes)
        with untouched(root):
            if stage is not None:
                context.made = list(stage.made)
                attributes += _found(root, find_changes(stage, attributes, correct_forward))
            repeated, doubts = _repeated(root, plan, stage, attributes, inputs)
            attributes += repeated
            attributes += _config_changes(root, plan, stage, attributes, inputs)
            if any(mentions(module, ("training",)) for module in plan.local.modules.values()):
                trained = stage or Stage(root, plan, inputs)
                failure = trained.failure_in_training(attributes)
        for target in plan.targets:
            _shorten(target, journal, context)
        for positions in plan.positions:
            journal.overwrite(positions.tensor)
            context.positions[positions.name] = positions.tensor.detach().clone()
            renumber(positions.tensor, positions.after(positions.tensor))
        for change in attributes:
            _set(plan.local, change, journal, context)
        if verification is not None:
            with untouched(root):
                context.verified = verification.check(root)
    except BaseException:
        journal.rollback()
        _refresh(model)
        raise
    _refresh(model)
    remember(root, context)
    warn_of_stale_config(root)
    warn_of(followed.left)
    warn_of_doubts(doubts)
    warn_of_training(failure)
    return model, context


@in_mode_of_model
def recovery_cut(model: ModelT, cut_dict: Cut, param_context: CutContext) -> ModelT:
    """Undo :func:`set_cut`: every tensor, gradient and attribute comes back bit for bit.

    Slices that stayed keep the values they have now, so training in between is kept. Cuts of the
    same tensors are undone newest first. Returns the same model. Raises
    :class:`ContextMismatchError`, and leaves the model as it was.
    """
    root = unwrap(model)
    cut = read_module_cut(cut_dict)
    local = LocalModel(root)
    context = check_context(local, cut, param_context, "cut")
    cut = replace(cut, terminal={**cut.terminal, **context.followed})
    axes = context.axes(cut)
    journal = Journal()
    try:
        _take_repairs_back(local, context, journal)
        for name, (pruner_class, user_context) in context.custom.items():
            if pruner_class.recovery_cut is not BasePruner.recovery_cut:
                _recover_custom(local, name, pruner_class, user_context, cut, context, journal)
        for name, noted in context.positions.items():
            positions = Positions(name, local.tensors[name], cut.renumbers[name])
            journal.overwrite(positions.tensor)
            renumber(positions.tensor, positions.before(positions.tensor, noted))
        with torch.no_grad():
            for name, record in context.tensors.items():
                tensor = local.tensors[name]
                if tuple(tensor.shape) == record.before:
                    continue  # its own pruner has put it back
                data = slices.restore_data(tensor.detach(), axes[name], record.removed)
                grad = slices.restored_gradient(tensor, axes[name], record.removed)
                journal.replace_data(tensor, data, grad)
        unmake(local, context.made, journal)
        for change in reversed(context.attributes):
            journal.set_attribute(_owner(local, change), change.path[-1], change.old)
    except BaseException:
        journal.rollback()
        _refresh(model)
        raise
    _refresh(model)
    forget(root, context)
    return model


def _take_repairs_back(local: LocalModel, context: CutContext, journal: Journal) -> None:
    """Give tensors that a recovery repaired, and nothing changed since, their values of before."""
    with torch.no_grad():
        for name, repair in context.repairs.items():
            tensor = local.tensors.get(name)
            if tensor is not None and mark(tensor) == repair.after:
                journal.overwrite(tensor)
                tensor.detach().copy_(repair.before)


def _plan(root: nn.Module, cut: CutResult, inputs: Any) -> tuple[Plan, Followed]:
    """Return what the cut does to the model, the state included that only a training run reads."""
    plan = make_plan(root, cut)
    followed = follow_unread(root, cut, inputs)
    if followed.terminal:
        try:
            return make_plan(root, followed.joined(cut)), followed
        except ReplayError:
            followed = Followed(left=(*followed.terminal, *followed.left))
    return plan, followed


def _found(root: nn.Module, changes: list[Change]) -> list[AttributeChange]:
    """Return attribute changes, a corrected forward being the attribute ``forward``."""
    corrections = [change for change in changes if isinstance(change, Correction)]
    attributes = [change for change in changes if isinstance(change, AttributeChange)]
    for name, forward in correct(LocalModel(root).modules, corrections).items():
        old = get_attribute(forward.module, "forward")
        attributes.append(AttributeChange(name, ("forward",), old, forward))
    return attributes


def _repeated(
    root: nn.Module,
    plan: Plan,
    stage: Stage | None,
    attributes: list[AttributeChange],
    inputs: Any,
) -> tuple[list[AttributeChange], list[Doubt]]:
    stages = [stage] if stage is not None else []

    def harmless(more: list[AttributeChange]) -> bool:
        if not stages:
            stages.append(Stage(root, plan, inputs))
        if not stages[0].everything:
            return True  # the forward never runs here, and what cannot run reads nothing
        if stages[0].rehearse(stages[0].candidate([*attributes, *more])).good:
            return True
        # The calls may differ from those before the cut in any case: then only values can tell.
        off = difference(stages[0], [*attributes, *more])
        return off is not None and off <= TOLERANCE

    return follow_repeated(plan, attributes, harmless)


def _config_changes(
    root: nn.Module,
    plan: Plan,
    stage: Stage | None,
    attributes: list[AttributeChange],
    inputs: Any,
) -> list[AttributeChange]:
    shapes = state_shapes(root)
    for target in plan.targets:
        for name in target.names:
            if module_path(name) in shapes:
                shapes[module_path(name)] = target.after
    if any(change.path in (("forward",), ("__class__",)) for change in attributes):
        return []  # no config builds a corrected forward
    stages = [stage] if stage is not None else []

    def accept(
        base: nn.Module, built: nn.Module, changes: list[AttributeChange]
    ) -> list[AttributeChange] | None:
        if not stages:
            stages.append(Stage(root, plan, inputs))
        if not stages[0].everything:
            return None
        taken = {(change.module, change.path) for change in attributes}
        fresh = [change for change in changes if (change.module, change.path) not in taken]
        more = adopted(base, built, stages[0].candidate(attributes))
        if more is None:
            return None
        fresh += [change for change in more if (change.module, change.path) not in taken]
        runs = stages[0].rehearse(stages[0].candidate([*attributes, *fresh])).good
        return fresh if runs else None

    return follow_config(root, shapes, accept)


def _shorten(target: Target, journal: Journal, context: CutContext) -> None:
    tensor = target.tensor
    if tuple(tensor.shape) == target.before:
        with torch.no_grad():
            data, removed = slices.cut_data(tensor.detach(), target.axes)
            grad = slices.cut_gradient(tensor, target.axes, removed)
            journal.replace_data(tensor, data, grad)
        context.tensors[target.name] = TensorRecord(removed, target.before, target.after)
    elif tuple(tensor.shape) != target.after:
        raise ModulePrunerError(
            f"a module pruner left {target.name} with the shape {tuple(tensor.shape)}, and the cut asks "
            f"for {target.after}",
            node=target.name,
            expected=list(target.after),
            received=list(tensor.shape),
        )


def _set(local: LocalModel, change: AttributeChange, journal: Journal, context: CutContext) -> None:
    journal.set_attribute(_owner(local, change), change.path[-1], change.new)
    if isinstance(change.new, CorrectedForward):
        # The wrapper holds its module: a context that is pickled must not take the model along.
        change = replace(change, new=CorrectionNote(change.new.corrections))
    context.attributes.append(change)


def _owner(local: LocalModel, change: AttributeChange) -> Any:
    """Return what holds the attribute: the module, or its config."""
    owner: Any = local.modules[change.module]
    for step in change.path[:-1]:
        owner = getattr(owner, step)
    return owner


def _run_custom(
    name: str,
    module: nn.Module,
    pruner: BasePruner,
    plan: Plan,
    journal: Journal,
    context: CutContext,
) -> None:
    snapshot = journal.lend(module)
    before = {id(t.tensor): tuple(t.tensor.shape) for t in plan.targets}
    with naming_failures(type(pruner), "set_cut", name, "put back"):
        returned, user_context = pruner.set_cut(module, plan.pending())
    if returned is not module:
        raise ModulePrunerError(
            f"{type(pruner).__name__}.set_cut must return the module it was given, changed in place, and "
            f"returned {type(returned).__name__}",
            module=name,
            pruner=type(pruner).__name__,
        )
    snapshot.keep_identity()
    for target in plan.targets:
        if tuple(target.tensor.shape) == before[id(target.tensor)]:
            continue
        original = snapshot.original(target.tensor)
        if original is None:
            raise ModulePrunerError(
                f"{type(pruner).__name__} of {name} changed {target.name}, which is not below it",
                module=name,
                node=target.name,
            )
        _, removed = slices.cut_data(original[0], target.axes)
        if original[1] is not None:
            grad, removed.grad = slices.cut_data(original[1], target.axes)
            if target.tensor.grad is None and tuple(target.tensor.shape) == target.after:
                target.tensor.grad = grad
            if target.tensor.grad is not None:
                slices.remember_gradient(removed.grad, target.tensor.grad)
        context.tensors[target.name] = TensorRecord(removed, target.before, target.after)
    names = {id(each): other for other, each in reversed(plan.local.modules.items())}
    context.attributes.extend(snapshot.changes(names))
    context.custom[name] = (type(pruner), user_context)


def _recover_custom(
    local: LocalModel,
    name: str,
    pruner_class: type[BasePruner],
    user_context: Any,
    cut: CutResult,
    context: CutContext,
    journal: Journal,
) -> None:
    module = local.modules[name]
    snapshot = journal.lend(module)
    with naming_failures(pruner_class, "recovery_cut", name, "left pruned"):
        pruner_class(name).recovery_cut(module, _own(local, name, cut, context), user_context)
    snapshot.keep_identity()
    for tensor_name, record in context.tensors.items():
        shape = tuple(local.tensors[tensor_name].shape)
        if shape not in (record.before, record.after):
            raise ModulePrunerError(
                f"{pruner_class.__name__}.recovery_cut left {tensor_name} with the shape {shape}, and it "
                f"was {record.before}",
                module=name,
                node=tensor_name,
                expected=list(record.before),
                received=list(shape),
            )


def _own(local: LocalModel, name: str, cut: CutResult, context: CutContext) -> CutResult:
    """Return the cut under every name, less the tensors that are back already."""
    terminal = {}
    for tensor_name, record in context.tensors.items():
        tensor = local.tensors[tensor_name]
        if tuple(tensor.shape) == record.after:
            for other in local.names[id(tensor)]:
                terminal[other] = cut.terminal[tensor_name]
    return CutResult(terminal=terminal, iner=cut.iner, operator=cut.operator)


def _refresh(model: nn.Module) -> None:
    """Renew what is kept beside the parameters and knows their shapes."""
    refresh_wrappers(model)
    torch.clear_autocast_cache()  # a cut within torch.autocast: copies of the weights as they were
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()  # one block of weights for cuDNN; nothing on a CPU
