"""Which pruner serves which class of module."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torchpruner_core.pruning.module_pruners.base import BasePruner


class ModulePrunerRegister:
    """Class of module -> class of pruner; a subclass of a registered layer inherits its pruner."""

    def __init__(self) -> None:
        self._pruners: dict[type, type[BasePruner]] = {}

    def regist(self, cls: type, pruner: type[BasePruner]) -> None:
        """Let ``pruner`` serve modules of ``cls`` and of its subclasses.

        A second registration of a class replaces the first with a warning. Raises ``TypeError``
        where either is not a class of the right kind.
        """
        if not isinstance(cls, type):
            raise TypeError(f"a pruner is registered for a class, not for {cls!r}")
        if not (isinstance(pruner, type) and issubclass(pruner, BasePruner)):
            raise TypeError(
                f"{pruner!r} is not a subclass of torchpruner_core.module_pruner.BasePruner"
            )
        known = self._pruners.get(cls)
        if known is not None and known is not pruner:
            warnings.warn(
                f"{pruner.__name__} replaces {known.__name__} as the pruner of {cls.__name__}",
                stacklevel=2,
            )
        self._pruners[cls] = pruner

    def get(self, cls: type) -> type[BasePruner] | None:
        """Return the pruner of ``cls`` or of its nearest registered base class."""
        for base in cls.__mro__:
            if base in self._pruners:
                return self._pruners[base]
        return None

    def __contains__(self, cls: type) -> bool:
        return self.get(cls) is not None

    @contextmanager
    def temporarily(self, cls: type, pruner: type[BasePruner]) -> Iterator[None]:
        """Register for the length of a ``with`` block."""
        missing: Any = object()
        before: Any = self._pruners.get(cls, missing)
        self._pruners[cls] = pruner
        try:
            yield
        finally:
            if before is missing:
                self._pruners.pop(cls, None)
            else:
                self._pruners[cls] = before


module_pruner_reg = ModulePrunerRegister()
"""The module pruners this process knows: a decorator that takes the class of module they prune."""
