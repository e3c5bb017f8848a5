"""What the code of a module mentions, without running it.

``assert x.shape[1] == self.width`` and ``if y.shape == x.shape`` leave nothing in a graph, and yet another
path may be taken once a size is another one. The names in the compiled code tell where that can happen.

What is followed are methods, functions of the model's own packages and what they call by name; PyTorch's own
code is not. A size read through ``getattr`` with a computed name, or in a compiled extension, is not seen.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

SIZES = frozenset({"shape", "size", "numel", "nelement", "len", "stride"})
"""Names under which code reads how large a tensor is."""

_FOREIGN = {"torch", "numpy", "math", *sys.stdlib_module_names} - {"__main__"}
"""Packages whose code is no model's."""

_by_class: weakref.WeakKeyDictionary[type, frozenset[str]] = weakref.WeakKeyDictionary()


def mentions(module: nn.Module, names: Iterable[str]) -> bool:
    """Tell whether the code that runs in a module's forward mentions one of some names."""
    wanted = frozenset(names)
    cls = type(module)
    if cls not in _by_class:
        _by_class[cls] = _mentioned(cls, _functions(getattr(cls, "forward", None)))
    if not wanted.isdisjoint(_by_class[cls]):
        return True
    return not wanted.isdisjoint(_mentioned(cls, _of_instance(module)))


def mentioned(modules: Iterable[nn.Module]) -> frozenset[str]:
    """Return every name, and every word in quotes, of the code that runs in the modules' forwards."""
    found: set[str] = set()
    for module in modules:
        mentions(module, ())
        found |= _by_class[type(module)] | _mentioned(type(module), _of_instance(module))
    return frozenset(name.strip("'") for name in found)


def is_own(cls: type) -> bool:
    """Tell whether all code of a class is the model's: nothing that PyTorch wrote reads its attributes."""
    return all(
        base in (nn.Module, object) or not _is_foreign(base.__module__) for base in cls.__mro__
    )


def _of_instance(module: nn.Module) -> Iterator[types.FunctionType]:
    """Yield what this module runs beside its class's code: hooks, its own forward, callables it holds."""
    hooks = (module._forward_pre_hooks, module._forward_hooks)
    held = [value for value in vars(module).values() if callable(value)]
    for value in (*held, *(hook for each in hooks for hook in each.values())):
        yield from _functions(value)


def _mentioned(cls: type, first: Iterable[types.FunctionType]) -> frozenset[str]:
    found: set[str] = set()
    waiting = list(first)
    seen: set[int] = set()
    while waiting:
        function = waiting.pop()
        if id(function) in seen or _is_foreign(function.__module__):
            continue
        seen.add(id(function))
        names = set(_names(function.__code__))
        found |= names
        for cell in function.__closure__ or ():
            waiting.extend(_functions(_content(cell)))
        for name in names:
            waiting.extend(_functions(inspect.getattr_static(cls, name, None)))
            held = function.__globals__.get(name)
            waiting.extend(_functions(held))
            if isinstance(held, types.ModuleType) and not _is_foreign(held.__name__):
                for other in names:
                    waiting.extend(_functions(vars(held).get(other)))
    return frozenset(found)


def _functions(value: Any) -> Iterator[types.FunctionType]:
    """Yield the Python functions behind something that can be called."""
    if isinstance(value, functools.partial):
        yield from _functions(value.func)
    elif isinstance(value, (staticmethod, classmethod, types.MethodType)):
        yield from _functions(value.__func__)
    elif isinstance(value, property):
        yield from _functions(value.fget)
    elif isinstance(value, types.FunctionType):
        yield value
    elif hasattr(value, "__wrapped__"):
        yield from _functions(value.__wrapped__)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
        elif isinstance(constant, str):
            yield f"'{constant}'"


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it was never filled
        return None


def _is_foreign(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _FOREIGN
