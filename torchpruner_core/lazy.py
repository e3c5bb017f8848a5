"""Public names that are imported where they are first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

EXTRAS = {
    "torch": "torch",
    "onnx": "onnx",
    "onnx_ir": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "scipy": "onnx",
}
"""Packages that are not in the base installation, and the extra that brings each."""


IN_FUNCTIONS = {
    "exporting": ("onnx",),
    "importing.solving": ("onnx", "scipy"),
    "onnx_graph": ("onnx", "scipy"),
    "onnx_pruning": ("onnx",),
}
"""Modules that import one of these packages only once they are called."""


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
            value = getattr(_imported(f"{package}.{public[name]}", name), name)
            for needed in IN_FUNCTIONS.get(public[name], ()):
                if find_spec(needed) is None:
                    error = ModuleNotFoundError(f"No module named {needed!r}", name=needed)
                    raise missing(error, name, EXTRAS[needed])
        elif name in names:
            value = _imported(f"{package}.{name}", name)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    return find, lambda: names


def _imported(module: str, name: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise missing(error, name, extra) from error


def missing(error: ModuleNotFoundError, what: str, extra: str) -> ModuleNotFoundError:
    """Return ``error`` saying what needs the package and which extra brings it."""
    return ModuleNotFoundError(
        f"{what} needs {error.name}, which the base installation leaves out: "
        f"pip install 'torchpruner-service[{extra}]'",
        name=error.name,
        path=error.path,
    )
