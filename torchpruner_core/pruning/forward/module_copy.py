"""A copy of a tree of modules, as :func:`copy.deepcopy` makes it and several times as quickly.

A search rehearses hundreds of shadows, and most of what a module holds is empty: a dozen ordered dicts for
hooks, which ``deepcopy`` takes apart and puts together one by one.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)

_HOLDERS = frozenset({OrderedDict, dict, set, list})
_AS_THEY_ARE = frozenset({int, float, bool, str, bytes, complex, type(None), type})


def copied(root: M, memo: dict[int, Any]) -> M:
    """Return a deep copy of ``root``; ``memo`` holds what stands for some objects, by their ``id``."""
    states = {
        module: module.__getstate__()
        for module in root.modules()
        if id(module) not in memo and _is_plain(module)
    }
    for module in states:
        # All of them first: then no module is reached through another one's attributes.
        memo[id(module)] = object.__new__(type(module))
    for module, state in states.items():
        memo[id(module)].__setstate__({name: _copied(x, memo) for name, x in state.items()})
    return copy.deepcopy(root, memo)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind in _HOLDERS and not value and id(value) not in memo:
        memo[id(value)] = empty = kind()
        return empty
    return copy.deepcopy(value, memo)


def _is_plain(module: nn.Module) -> bool:
    """Return whether nothing says that a module is copied otherwise than by its state."""
    kind = type(module)
    own = ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__")
    return (
        not any(hasattr(kind, name) for name in own)
        and kind.__new__ is object.__new__
        and kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
    )
