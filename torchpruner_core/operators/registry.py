"""Which class describes which operator type."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from torchpruner_core.operators.base import OperatorNode

logger = logging.getLogger(__name__)

Family = TypeVar("Family", bound=type[OperatorNode])

STANDARD_DOMAINS = ("", "ai.onnx")


class OperatorRegister:
    """Operator type (``'Conv'``, or ``'domain::Type'`` outside ONNX's own) to its class."""

    def __init__(self) -> None:
        self._classes: dict[str, type[OperatorNode]] = {}
        self._own: set[str] = set()

    def regist(self, name: str, operator_class: type[OperatorNode]) -> None:
        """Let ``operator_class`` describe operators of type ``name``, of whatever domain.

        ``'domain::Type'`` means that domain only. A type that is registered already is replaced,
        with a warning. Graphs built before keep the class they were built with. Raises
        ``TypeError`` for what is no operator class.
        """
        if not (isinstance(operator_class, type) and issubclass(operator_class, OperatorNode)):
            raise TypeError(
                f"an operator class subclasses torchpruner_core.OperatorNode; got {operator_class!r}"
            )
        if name in self._classes and self._classes[name] is not operator_class:
            logger.warning(
                "operator %s was described by %s and is now described by %s",
                name,
                self._classes[name].__name__,
                operator_class.__name__,
            )
        self._classes[name] = operator_class
        self._own.discard(name)

    def describe(self, name: str, operator_class: type[OperatorNode]) -> None:
        """Register one of this package's own families; a plain name means ONNX's own domain."""
        self._classes[name] = operator_class
        self._own.add(name)

    def get(self, name: str, domain: str = "") -> type[OperatorNode]:
        """Return the class for a type; :class:`OperatorNode`, which is opaque, where there is none."""
        if domain not in STANDARD_DOMAINS:
            qualified = f"{domain}::{name}"
            if qualified in self._classes:
                name = qualified
            elif name in self._own:
                return OperatorNode
        return self._classes.get(name, OperatorNode)

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def names(self) -> list[str]:
        """Return the described operator types, sorted."""
        return sorted(self._classes)


operator_register = OperatorRegister()
"""The operators this process knows: a decorator that takes the name of an ONNX operator."""

operator_reg = operator_register
"""The manual's other name of :data:`operator_register`."""


def describes(*names: str) -> Callable[[Family], Family]:
    """Register a family's class for the operator types ``names``, several a string."""

    def register(operator_class: Family) -> Family:
        for name in " ".join(names).split():
            operator_register.describe(name, operator_class)
        return operator_class

    return register
