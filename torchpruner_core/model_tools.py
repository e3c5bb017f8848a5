"""Finding and replacing modules by name, by class, and by sequence of classes.

Names are the graph's: ``'self'`` is the model, ``'self.layer1.0.conv1'`` a module in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from torch import nn

from torchpruner_core.errors import UnknownObjectError
from torchpruner_core.exporting.unwrapping import unwrap

__all__ = [
    "get_name_groups_by_classes",
    "get_names_by_class",
    "get_object",
    "replace_object_by_class",
    "replace_object_by_name_groups",
    "replace_object_by_names",
    "set_object",
]

ModelT = TypeVar("ModelT", bound=nn.Module)
Classes = type | Sequence[type]


def get_object(model: nn.Module, name: str) -> Any:
    """Return the module, parameter or attribute called ``name``.

    Raises :class:`UnknownObjectError` with the part of the name that does not exist.

    >>> get_object(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), 'self.1')
    ReLU()
    """
    steps = name.split(".") if isinstance(name, str) else [""]
    if steps[0] != "self":
        raise UnknownObjectError(f"names start with 'self', as 'self.layer1.0': not {name!r}")
    found: Any = unwrap(model)
    for i, step in enumerate(steps[1:], start=1):
        below = found._modules if isinstance(found, nn.Module) else {}
        if step in below:
            found = below[step]
        elif hasattr(found, step):
            found = getattr(found, step)
        elif step.isdigit() and isinstance(found, Sequence) and int(step) < len(found):
            found = found[int(step)]
        else:
            where = ".".join(steps[:i])
            raise UnknownObjectError(
                f"{where} ({type(found).__name__}) has no {step!r}"
                + (f"; it has {', '.join(below)}" if below else ""),
                name=name,
                module=where,
            )
    return found


def set_object(model: ModelT, name: str, nn_module: Any) -> ModelT:
    """Put ``nn_module`` in the place called ``name`` and return the model.

    For the name ``'self'`` that is ``nn_module`` itself. Raises :class:`UnknownObjectError` where
    there is nothing of that name to replace.
    """
    if name == "self":
        return nn_module  # type: ignore[no-any-return]
    get_object(model, name)
    above, _, last = name.rpartition(".")
    parent = get_object(model, above)
    if isinstance(parent, nn.Module):
        setattr(parent, last, nn_module)
    else:
        parent[int(last)] = nn_module
    return model


def get_names_by_class(
    model: nn.Module, object_class: Classes, include_super_class: bool = True
) -> list[str]:
    """Return the names of the modules of a class, in the order they were registered.

    ``include_super_class`` also finds instances of subclasses. What is found is not searched
    further, so ``nn.Module`` finds only ``'self'``. ``object_class`` may be several classes.
    """
    names: list[str] = []
    _collect("self", unwrap(model), _as_tuple(object_class), include_super_class, names)
    return names


def _collect(
    name: str, module: nn.Module, classes: tuple[type, ...], subclasses: bool, names: list[str]
) -> None:
    if _is_a(module, classes, subclasses):
        names.append(name)
        return
    for key, child in module._modules.items():
        if child is not None:
            _collect(f"{name}.{key}", child, classes, subclasses, names)


def _as_tuple(object_class: Classes) -> tuple[type, ...]:
    if isinstance(object_class, type):
        return (object_class,)
    if not isinstance(object_class, (list, tuple, set, frozenset)) or not all(
        isinstance(each, type) for each in object_class
    ):
        raise TypeError(
            f"modules are found by a class, or several, such as torch.nn.Conv2d, not {object_class!r}"
        )
    return tuple(object_class)


def _is_a(value: Any, classes: tuple[type, ...], subclasses: bool) -> bool:
    return isinstance(value, classes) if subclasses else type(value) in classes


def get_name_groups_by_classes(
    graph: Any, object_class_list: Iterable[Classes], include_super_class: bool = True
) -> list[list[str]]:
    """Return every chain of modules of these classes in which each feeds the next.

    ``graph`` is a built ``ONNXGraph``. A chain follows the first output of a module; it does not
    matter which containers its modules are in. One list of names a chain.
    """
    if isinstance(graph, nn.Module) or not hasattr(graph, "modules"):
        raise TypeError(
            "chains are found in a built ONNXGraph, since a model alone does not say what feeds what; "
            f"not in {type(graph).__name__}"
        )
    wanted = [_as_tuple(classes) for classes in object_class_list]
    modules = [module for module in graph.modules.values() if module.nn_object is not None]
    chains: list[list[Any]] = [[]]
    for classes in wanted:
        matching = [
            module
            for module in modules
            if _is_a(module.nn_object, classes, include_super_class) and module.out_data
        ]
        chains = [
            [*chain, module]
            for chain in chains
            for module in matching
            if not chain or any(chain[-1].out_data[0] is node for node in module.in_data)
        ]
    return [[module.name for module in chain] for chain in chains if chain]


def replace_object_by_names(
    model: ModelT, name_list: Iterable[str], replace_function: Callable[[str, Any], Any]
) -> ModelT:
    """Replace each named module by ``replace_function(name, module)``; return the model.

    Raises :class:`UnknownObjectError` for a name that does not exist, and ``TypeError`` where
    ``replace_function`` returns ``None``; whatever is raised, no module is replaced.
    """
    if isinstance(name_list, str):
        name_list = [name_list]
    undo: list[tuple[str, Any]] = []
    changed = model
    try:
        for name in name_list:
            old = get_object(changed, name)
            changed = _replace(changed, name, old, replace_function(name, old), undo)
    except BaseException:
        _put_back(model, undo)
        raise
    return changed


def _replace(model: ModelT, name: str, old: Any, new: Any, undo: list[tuple[str, Any]]) -> ModelT:
    if new is None:
        raise TypeError(
            f"replace_function returned None for {name}: let it return the new module, or the old one "
            "where nothing is to change"
        )
    changed = set_object(model, name, new)
    undo.append((name, old))
    return changed


def _put_back(model: nn.Module, undo: list[tuple[str, Any]]) -> None:
    for name, old in reversed(undo):
        if name != "self":
            set_object(model, name, old)


def replace_object_by_name_groups(
    model: ModelT,
    group_name_list: Iterable[Sequence[str]],
    replace_function: Callable[[Sequence[str], list[Any]], Sequence[Any]],
) -> ModelT:
    """Replace the modules of each group by those that ``replace_function(names, modules)`` returns.

    Raises ``ValueError`` where it returns another number of modules than it was given, and else what
    :func:`replace_object_by_names` raises; no module is replaced then.
    """
    undo: list[tuple[str, Any]] = []
    changed = model
    try:
        for names in group_name_list:
            old = [get_object(changed, name) for name in names]
            replacements = list(replace_function(names, old))
            if len(replacements) != len(names):
                raise ValueError(
                    f"replace_function returned {len(replacements)} modules for the {len(names)} of "
                    f"{list(names)}"
                )
            for name, replacement in zip(names, replacements, strict=True):
                old_one = get_object(changed, name)
                changed = _replace(changed, name, old_one, replacement, undo)
    except BaseException:
        _put_back(model, undo)
        raise
    return changed


def replace_object_by_class(
    model: ModelT,
    object_class: Classes,
    replace_function: Callable[[str, Any], Any],
    include_super_class: bool = True,
) -> ModelT:
    """Replace every module of a class by ``replace_function(name, module)``; return the model."""
    names = get_names_by_class(model, object_class, include_super_class)
    return replace_object_by_names(model, names, replace_function)
