"""Running a model for its structure, and leaving everything as it was.

A forward pass writes: tables that it computes once, counters, statistics, what hooks collect. Where
it ran on tensors without values, what it wrote must not stay, or the next real pass computes with
it. So the module's whole ``__dict__`` tree is put back, and beside it what the code of a model can
reach: the variables that its hooks close over, tables at its classes and in its Python modules,
``functools.lru_cache``, random number generators and PyTorch's switches.
"""

from __future__ import annotations

import functools
import operator
import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import compress, filterfalse
from typing import Any

import numpy as np
import torch
from torch import nn

from torchpruner_core.module_tree import modules_by_path

_DEPTH = 6
"""So many containers within one another are followed."""

_MANY = 10_000
"""A container of more entries is kept as it is, without looking at each."""

_NOT_THE_MODELS = {"torch", "numpy", *sys.stdlib_module_names} - {"types", "argparse"}
"""Packages whose objects and globals no forward of a model fills with tensors; namespaces are no such."""


@contextmanager
def untouched(model: nn.Module, values: bool = False) -> Iterator[None]:
    """Put ``model`` and its surroundings back at the end, whatever happens.

    Tensors stay the objects they were. With ``values`` their contents are copied and put back too,
    which a run on real tensors may have changed (batch norm statistics in training mode).
    """
    tree = _Tree(model)
    tensors = [_Tensor(each, values) for each in tree.tensors]
    tables = _Tables(tree.modules, tree.python_modules)
    switches = _switches()
    try:
        yield
    finally:
        tree.restore()
        for tensor in tensors:
            tensor.restore()
        tables.restore()
        for restore in switches:
            restore()


@contextmanager
def tables_untouched(model: nn.Module) -> Iterator[None]:
    """Put the tables back that the code of ``model`` keeps outside of it, memoised ones included."""
    tables = _Tables(list(modules_by_path(model).values()), set())
    try:
        yield
    finally:
        tables.restore()


def held_tensors(model: nn.Module) -> list[torch.Tensor]:
    """Return every tensor that a model holds, in containers and plain objects too."""
    return _Tree(model).tensors


class _Tree:
    """What a module, its children, their plain objects and hooks hold."""

    def __init__(self, model: nn.Module) -> None:
        self._contents: list[tuple[Any, Any]] = []
        self._empty: list[dict[Any, Any] | set[Any]] = []
        self._cells: list[tuple[types.CellType, Any]] = []
        self._seen: set[int] = set()
        self.tensors: list[torch.Tensor] = []
        self.python_modules: set[str] = set()
        """Those of the functions found, such as hooks."""
        self.modules = list(modules_by_path(model).values())
        self._classes = [(module, type(module)) for module in self.modules]
        held: list[Any] = []
        for module in self.modules:
            attributes = module.__dict__
            self._seen.add(id(attributes))
            self._contents.append((attributes, dict(attributes)))
            held += attributes.values()
        # A module has two dozen attributes, a dozen of them empty containers: sorted without a loop.
        kinds = list(map(type, held))
        containers = list(compress(held, map(_CONTAINERS.__contains__, kinds)))
        self._empty += filterfalse(None, containers)
        for each in filter(None, containers):
            if type(each) is set:
                self._keep(each, 1)
            else:
                self._keep_named(each)
        others = set(kinds) - _PLAIN - _CONTAINERS
        for each in compress(held, map(others.__contains__, kinds)):
            self._keep(each, 1)

    def restore(self) -> None:
        for cell, held in reversed(self._cells):
            cell.cell_contents = held
        for container, contents in reversed(self._contents):
            if container or contents:
                _refill(container, contents)
        for each in self._empty:
            if each:
                each.clear()
        for module, cls in self._classes:
            if type(module) is not cls:
                module.__class__ = cls

    def _keep_named(self, held: dict[Any, Any]) -> None:
        """Keep a dict of a module's own, most of which hold its tensors or children."""
        if id(held) in self._seen:
            return
        self._seen.add(id(held))
        self._contents.append((held, dict(held)))
        if len(held) <= _MANY:
            for each in held.values():
                kind = type(each)
                if kind in _PLAIN_TENSORS:
                    if id(each) not in self._seen:
                        self._seen.add(id(each))
                        self.tensors.append(each)
                elif kind not in _PLAIN:
                    self._keep(each, 2)

    def _keep(self, value: Any, depth: int) -> None:
        # Most of what modules hold are plain values and children: told by their type alone.
        kind = type(value)
        if (
            kind in _PLAIN
            or depth > _DEPTH
            or isinstance(value, nn.Module)
            or id(value) in self._seen
        ):
            return
        if isinstance(value, torch.Tensor):
            self._seen.add(id(value))
            self.tensors.append(value)
        elif isinstance(value, (dict, list, set, deque)):
            self._seen.add(id(value))
            contents = _contents(value)
            self._contents.append((value, contents))
            if 0 < len(contents) <= _MANY:
                for each in contents.values() if isinstance(value, dict) else contents:
                    if type(each) not in _PLAIN:
                        self._keep(each, depth + 1)
        elif isinstance(value, tuple):
            for each in value:
                if type(each) not in _PLAIN:
                    self._keep(each, depth + 1)
        elif isinstance(value, types.FunctionType):
            self._seen.add(id(value))
            self.python_modules.add(value.__module__)
            self._keep_cells(value, depth)
        elif isinstance(value, types.MethodType):
            self._keep(value.__self__, depth + 1)
            self._keep(value.__func__, depth + 1)
        elif isinstance(value, functools.partial):
            self._keep((value.func, value.args, value.keywords), depth + 1)
        elif not isinstance(value, (type, types.ModuleType)) and not _is_foreign(kind.__module__):
            self._seen.add(id(value))
            self._keep(getattr(value, "__dict__", None), depth + 1)

    def _keep_cells(self, function: types.FunctionType, depth: int) -> None:
        for cell in function.__closure__ or ():
            try:
                held = cell.cell_contents
            except ValueError:
                continue  # not bound yet
            if type(held) in _PLAIN or isinstance(held, torch.Tensor):
                self._cells.append((cell, held))
            self._keep(held, depth + 1)


_CONTAINERS = frozenset([dict, OrderedDict, set])


_PLAIN_TENSORS = frozenset([torch.Tensor, nn.Parameter, nn.Buffer])

_PLAIN = frozenset(
    [bool, int, float, complex, str, bytes, type(None), torch.Size, torch.dtype, torch.device]
)


def _contents(container: Any) -> Any:
    return dict(container) if isinstance(container, dict) else list(container)


def _refill(container: Any, contents: Any) -> None:
    """Give a container the very objects back that it held, in their order."""
    if not _is_same(container, contents):
        container.clear()
        if isinstance(container, (dict, set)):
            container.update(contents)
        else:
            container.extend(contents)


def _is_same(container: Any, contents: Any) -> bool:
    """Return whether a container holds the very objects of ``contents``, in their order."""
    if len(container) != len(contents) or not all(map(operator.is_, container, contents)):
        return False
    return type(contents) is list or all(map(operator.is_, container.values(), contents.values()))


def _is_foreign(python_module: str) -> bool:
    return python_module.partition(".")[0] in _NOT_THE_MODELS


class _Tensor:
    """One tensor's memory, version, flag, gradient and, where asked, contents."""

    __slots__ = ("copy", "data", "grad", "plain", "requires_grad", "tensor", "version")

    def __init__(self, tensor: torch.Tensor, values: bool) -> None:
        self.tensor, self.data = tensor, tensor.data
        self.requires_grad = tensor.requires_grad
        self.grad = tensor.grad if tensor.is_leaf else None
        self.version = None if tensor.is_inference() else tensor._version
        self.plain = (
            type(tensor) in _PLAIN_TENSORS and tensor.layout is torch.strided and not tensor.is_meta
        )
        stored = values and self.plain
        self.copy = tensor.detach().clone() if stored else None

    def restore(self) -> None:
        tensor = self.tensor
        if tensor.is_leaf:
            if tensor.grad is not self.grad:
                tensor.grad = self.grad
            if tensor.requires_grad != self.requires_grad:
                tensor.requires_grad_(self.requires_grad)
        if self.plain and not tensor.is_set_to(self.data):
            tensor.data = self.data
        if self.copy is not None and not _same_bits(tensor.detach(), self.copy):
            with torch.no_grad():
                tensor.detach().copy_(self.copy)
        if self.version is not None and tensor._version != self.version:
            torch._C._autograd._unsafe_set_version_counter((tensor,), (self.version,))


def _same_bits(x: torch.Tensor, y: torch.Tensor) -> bool:
    return bool(torch.equal(x, y))  # a NaN is unequal to itself: such a tensor is copied back


_MEMOISED: dict[str, tuple[int, list[Any]]] = {}
"""Memoised functions by Python module or class, and how many names it had when it was looked through."""


_LOADED: dict[str, tuple[int, list[str]]] = {}
"""Python modules by package, and how many were loaded in all when they were looked through."""


def _loaded(package: str) -> list[str]:
    """Return the names of a package's loaded modules."""
    known = _LOADED.get(package)
    if known is None or known[0] != len(sys.modules):
        names = [name for name in list(sys.modules) if name.partition(".")[0] == package]
        known = _LOADED[package] = len(sys.modules), names
    return known[1]


class _Tables:
    """Tensors kept at classes, in the globals of a model's Python modules and in memoised functions."""

    def __init__(self, modules: list[nn.Module], more: set[str]) -> None:
        classes = {
            cls: None
            for kind in set(map(type, modules))
            for cls in kind.__mro__
            if not _is_foreign(cls.__module__)
        }
        names = {cls.__module__ for cls in classes} | {
            name for name in more if not _is_foreign(name)
        }
        self._homes: list[tuple[Any, dict[str, Any], list[tuple[Any, Any]]]] = []
        for home in [*classes, *(sys.modules.get(name) for name in names)]:
            if home is not None:
                before = dict(vars(home))
                containers = [
                    (each, _contents(each))
                    for each in before.values()
                    if type(each) in (dict, list, set, deque)
                ]
                self._homes.append((home, before, containers))
        self._memoised: dict[int, tuple[Any, int]] = {}
        for package in {name.partition(".")[0] for name in names}:
            for name in _loaded(package):
                if isinstance(each := sys.modules.get(name), types.ModuleType):
                    self._keep_memoised(name, vars(each))
        for cls in classes:
            self._keep_memoised(f"{cls.__module__}.{cls.__qualname__}", vars(cls))

    def _keep_memoised(self, home: str, names: Any) -> None:
        known = _MEMOISED.get(home)
        if known is None or known[0] != len(names):
            found = []
            for value in list(names.values()):
                plain = getattr(value, "__func__", value) if type(value) is staticmethod else value
                if type(plain) is functools._lru_cache_wrapper:
                    found.append(plain)
            known = _MEMOISED[home] = len(names), found
        for function in known[1]:
            self._memoised[id(function)] = function, function.cache_info().misses

    def restore(self) -> None:
        for function, misses in self._memoised.values():
            if function.cache_info().misses != misses:
                function.cache_clear()  # what it keeps cannot be told apart, and is computed again
        for home, before, containers in self._homes:
            for container, contents in containers:
                if not _is_same(container, contents) and _holds_tensors(container):
                    _refill(container, contents)
            if _is_same(vars(home), before):
                continue
            for name, value in list(vars(home).items()):
                if value is before.get(name, _ABSENT) or not _holds_tensors(value):
                    continue
                if name in before:
                    setattr(home, name, before[name])
                else:
                    delattr(home, name)


_ABSENT = object()


def _holds_tensors(value: Any, depth: int = 0) -> bool:
    if isinstance(value, torch.Tensor):
        return True
    if depth > 3 or not isinstance(value, (dict, list, tuple, set, deque)):
        return False
    entries = list(value.values()) if isinstance(value, dict) else list(value)
    return any(_holds_tensors(entry, depth + 1) for entry in entries)


def _switches() -> list[Callable[[], Any]]:
    """Return what puts random number generators and PyTorch's switches back."""
    restore: list[Callable[[], Any]] = [
        functools.partial(torch.set_rng_state, torch.get_rng_state()),
        functools.partial(random.setstate, random.getstate()),
        functools.partial(np.random.set_state, np.random.get_state()),
        functools.partial(torch.set_grad_enabled, torch.is_grad_enabled()),
        functools.partial(torch.set_default_dtype, torch.get_default_dtype()),
        functools.partial(
            torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled()
        ),
    ]
    if torch.cuda.is_initialized():
        states = torch.cuda.get_rng_state_all()
        restore.append(functools.partial(torch.cuda.set_rng_state_all, states))
    return restore
