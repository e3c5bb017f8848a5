"""What each ATen operator means in ONNX: one function an operator, found by name.

A translation takes the :class:`~torchpruner_core.capture.writer.Writer`, the call, and the call's
arguments as ATen has them, with :class:`~torchpruner_core.capture.tape.Value` for tensors. It writes
operators and returns the name of the output (a list of names where the call has several). An
operator without a translation is taken apart by PyTorch where PyTorch can; the rest becomes an
operator of its own name that nobody has described, and the graph around it stays prunable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torchpruner_core.capture.aten import Operator

Translation = Callable[..., Any]
F = TypeVar("F", bound=Callable[..., Any])

_TRANSLATIONS: dict[str, Translation] = {}


def register_translation(*names: str) -> Callable[[F], F]:
    """Let a function translate operators: ``'mylib::op'``, or one overload of it, ``'mylib::op.Tensor'``.

    A later registration replaces an earlier one. Raises ``ValueError`` for a name without a namespace.

        @register_translation("mylib::scaled_add")
        def scaled_add(g, call, x, y, scale=1.0):
            return g.op("Add", x, g.op("Mul", y, g.scalar(scale, y.dtype)))
    """
    for name in names:
        if "::" not in name:
            raise ValueError(f"an operator's name has a namespace ('aten::add'), {name!r} has none")

    def register(function: F) -> F:
        for name in names:
            _TRANSLATIONS[name] = function
        return function

    return register


def aten(*names: str) -> Callable[[F], F]:
    """Register one of this package's own translations of ``aten::`` operators, several a string."""
    return register_translation(*(f"aten::{name}" for text in names for name in text.split()))


def translation(name: str, overload: str) -> Translation | None:
    """Return the translation of an operator, its overload's own before that of all overloads."""
    return _TRANSLATIONS.get(f"{name}.{overload or 'default'}") or _TRANSLATIONS.get(name)


def is_translated(op: Operator) -> bool:
    """Return whether an operator is recorded whole."""
    return op.qualified in _TRANSLATIONS or op.name in _TRANSLATIONS
