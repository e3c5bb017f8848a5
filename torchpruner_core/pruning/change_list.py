"""What a cut will do to a local model, worked out before anything is touched."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from torchpruner_core.cut_dict import operator_owner
from torchpruner_core.cut_result import AxisCuts, CutResult, OperatorChange
from torchpruner_core.errors import CutMismatchError
from torchpruner_core.importing.notes import FOLDED_NORMS
from torchpruner_core.pruning.mentions import SIZES, mentions
from torchpruner_core.pruning.module_pruners.base import (
    BasePruner,
    TensorPruner,
    layer_change,
    naming_failures,
)
from torchpruner_core.pruning.module_pruners.registry import module_pruner_reg
from torchpruner_core.pruning.tensors.journal import MISSING, AttributeChange, get_attribute
from torchpruner_core.pruning.tensors.positions import Positions, find_positions
from torchpruner_core.pruning.tensors.targets import LocalModel, Target, own_tensors, split_name


@dataclass
class Plan:
    """Tensors to shorten, attributes to set, pruners to call, and constants nobody has taken."""

    local: LocalModel
    cut: CutResult
    targets: list[Target]
    attributes: list[AttributeChange] = field(default_factory=list)
    custom: list[tuple[str, nn.Module, BasePruner]] = field(default_factory=list)
    positions: list[Positions] = field(default_factory=list)
    """The tensors of indices whose values change."""
    untaken: dict[str, OperatorChange] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    """Modules whose code may compute with a size that changes."""
    literals: dict[str, AxisCuts] = field(default_factory=dict)
    """The axes of stored constants that the model has no tensor for."""

    @property
    def needs_rehearsal(self) -> bool:
        """Whether only a run of ``forward()`` can tell that the model follows the cut.

        Code that takes another size from a width that changes (``width // heads``) would follow where
        it must not, and code that compares one (``if y.shape == x.shape``) may take another path; no
        constant says so.
        """
        return bool(self.untaken or self.stale or (self.readers and self.cut.inputs))

    def pending(self) -> CutResult:
        """Return the cut less the tensors that have been shortened already."""
        done = {
            name
            for target in self.targets
            if tuple(target.tensor.shape) != target.before
            for name in target.names
        }
        terminal = {name: axes for name, axes in self.cut.terminal.items() if name not in done}
        return replace(self.cut, terminal=terminal)


def _refuse_folded_norms(model: nn.Module, cut: CutResult) -> None:
    """Refuse a cut of a file without batch norms for a model that has them: they would stay too long."""
    folded = next((note for note in cut.notes if note.startswith(FOLDED_NORMS)), None)
    norm = nn.modules.batchnorm._BatchNorm
    name = next((name for name, module in model.named_modules() if isinstance(module, norm)), None)
    if folded is not None and name is not None:
        raise CutMismatchError(
            f"the model has batch norms ({name}) that the analysed file has not: {folded}",
            node=f"self.{name}",
        )


def make_plan(model: nn.Module, cut: CutResult) -> Plan:
    """Resolve every name and ask every module pruner.

    Raises :class:`CutMismatchError` or :class:`ModulePrunerError`; the model is only read.
    """
    local = LocalModel(model)
    _refuse_folded_norms(model, cut)
    try:
        targets = local.find(cut)
    except CutMismatchError as error:
        if not cut.notes:
            raise
        detail = f"{error.detail}. Of the file that was analysed: {'; '.join(cut.notes)}"
        raise CutMismatchError(detail, **error.fields) from error
    plan = Plan(local, _at_every_module_name(under_every_name(cut, targets), local), targets)
    handled: set[int] = set()
    for name in _modules_of(plan):
        module = local.modules[name]
        if id(module) in handled:
            continue
        handled.add(id(module))
        pruner_class = module_pruner_reg.get(type(module))
        if pruner_class is None or issubclass(pruner_class, TensorPruner):
            if _repeats_a_size(name, module, plan):
                plan.stale.append(name)
            if any(own_tensors(module)):
                plan.readers.append(name)
            continue
        pruner = pruner_class(name)
        if not pruner_class.declarative:
            plan.custom.append((name, module, pruner))
            continue
        plan.attributes.extend(_declared(name, module, pruner, plan.cut))
    modules = local.modules
    plan.readers += [n for n in cut.reads_sizes if n in modules and not _is_plain_layer(modules[n])]
    looked_at = SIZES.union(change.path[-1] for change in plan.attributes)
    plan.readers += [n for n, module in modules.items() if mentions(module, looked_at)]
    plan.attributes.extend(_caches(plan))
    # A parent's pruner may hand its children to its own code: parents first.
    plan.custom.sort(key=lambda entry: entry[0].count("."))
    plan.positions = find_positions(local, cut, targets)
    renumbered = _renumbered_operators(cut, local)
    for operator, change in cut.operator.items():
        owner = local.modules.get(operator_owner(operator)[0])
        if operator in renumbered:
            change = {key: amount for key, amount in change.items() if key != "indices"}
        if change and (owner is None or not has_own_rule(type(owner))):
            plan.untaken[operator] = change
    for literal in cut.literals:
        if literal not in local.tensors and literal in cut.terminal:
            plan.untaken.setdefault(literal, {})
            plan.literals[literal] = cut.terminal[literal]
    for operator in cut.renormalises:
        name = operator_owner(operator)[0]
        layer = local.modules.get(name)
        if layer is not None and has_own_rule(type(layer)) and not any(own_tensors(layer)):
            plan.stale.append(name)
    return plan


def _renumbered_operators(cut: CutResult, local: LocalModel) -> set[str]:
    """Return the operators all of whose indices are in tensors of the model."""
    held = [r for name, r in cut.renumbers.items() if name in local.tensors]
    written = [r for name, r in cut.renumbers.items() if name not in local.tensors]
    found = {operator for each in held for operator in each.operators}
    return found - {operator for each in written for operator in each.operators}


def _caches(plan: Plan) -> list[AttributeChange]:
    """Return the caches to empty: dicts of tensors that a module computed from what is cut."""
    found = []
    for name in dict.fromkeys(split_name(name)[0] for t in plan.targets for name in t.names):
        module = plan.local.modules[name]
        for key, value in vars(module).items():
            own = key in ("_parameters", "_buffers", "_modules")
            if type(value) is not dict or own or not value:
                continue
            if all(type(entry) is torch.Tensor for entry in value.values()):
                found.append(AttributeChange(name, (key,), value, {}))
    return found


def has_own_rule(cls: type) -> bool:
    """Tell whether a pruner serves modules of that class, and so takes their operators' changes."""
    pruner = module_pruner_reg.get(cls)
    return pruner is not None and not issubclass(pruner, TensorPruner)


def _is_plain_layer(module: nn.Module) -> bool:
    """Tell whether a module is a layer of PyTorch, whose numbers are its attributes."""
    plain = type(module).__module__.startswith("torch.nn.modules.")
    return has_own_rule(type(module)) or (plain and not any(True for _ in module.children()))


def under_every_name(cut: CutResult, targets: list[Target]) -> CutResult:
    """Return the cut with an entry for each name of a tied tensor."""
    terminal: dict[str, AxisCuts] = {}
    shapes = dict(cut.shapes)
    for target in targets:
        for name in target.names:
            terminal[name] = list(target.axes)
            if name in shapes:  # of complex numbers a program has one axis more
                shapes[name] = target.before
    return replace(cut, terminal=terminal, shapes=shapes)


def _at_every_module_name(cut: CutResult, local: LocalModel) -> CutResult:
    """Return the cut with its operators' changes under each name of a module that has several.

    An operator is named by the call that ran it, a parameter by where it was registered first.
    """
    operators = dict(cut.operator)
    for operator, change in cut.operator.items():
        owner, _ = operator_owner(operator)
        module = local.modules.get(owner)
        for other in local.names_of(module) if module is not None else ():
            key = other + operator.removeprefix(owner)
            while other != owner and operators.setdefault(key, change) != change:
                key += "_0"
    return replace(cut, operator=operators)


def _modules_of(plan: Plan) -> list[str]:
    names = dict.fromkeys(split_name(name)[0] for name in plan.cut.terminal)
    for operator in plan.cut.operator:
        owner = operator_owner(operator)[0]
        if owner in plan.local.modules:
            names[owner] = None
    # A parametrised weight lives two modules below the layer whose attributes repeat its sizes.
    for name in list(names):
        layer, found, _ = name.partition(".parametrizations.")
        if found and layer in plan.local.modules:
            names[layer] = None
    missing = [name for name in names if name not in plan.local.modules]
    if missing:
        raise CutMismatchError(f"the model has no module {missing[0]}", module=missing[0])
    return list(names)


def _declared(
    name: str, module: nn.Module, pruner: BasePruner, cut: CutResult
) -> list[AttributeChange]:
    with naming_failures(type(pruner), "attributes", name, "not changed"):
        values = pruner.attributes(module, layer_change(name, module, cut))
    changes = []
    for attribute, value in values.items():
        old = get_attribute(module, attribute)
        if type(old) is not type(value) or old != value:
            if old is MISSING and hasattr(type(module), attribute):
                continue  # computed by a property of the class: it follows by itself
            changes.append(AttributeChange(name, (attribute,), old, value))
    return changes


def _repeats_a_size(name: str, module: nn.Module, plan: Plan) -> bool:
    """Tell whether an unregistered module has an integer equal to the old size of a cut axis."""
    sizes: set[Any] = set()
    for attribute, tensor in own_tensors(module):
        for axis, indices in enumerate(plan.cut.terminal.get(f"{name}.{attribute}", ())):
            if indices is not None:
                sizes.add(tensor.shape[axis])
    for value in module.__dict__.values():
        entries = value if isinstance(value, (tuple, list, torch.Size)) else (value,)
        if any(type(entry) is int and entry in sizes for entry in entries):
            return True
    return False
