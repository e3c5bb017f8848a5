"""Public names that are imported where they are first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, public: Mapping[str, str], modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``.

    ``public`` maps a name to the submodule that defines it; ``modules`` are submodules that are
    public themselves.
    """
    names = sorted([*public, *modules])

    def find(name: str) -> Any:
        if name in public:
            value = getattr(import_module(f"{package}.{public[name]}"), name)
        elif name in names:
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    return find, lambda: names
