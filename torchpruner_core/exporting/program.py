"""A model as ONNX, whose weights are written out only when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torchpruner_core.importing.wire import strip_weights

if TYPE_CHECKING:
    from torchpruner_core.capture.tape import Frozen

Types = Mapping[str, tuple[tuple[int, ...], str]]
"""Value names to shapes and dtypes."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """How a model became a program.

    ``name`` is ``'capture'``, ``'torch.export'``, ``'TorchScript'`` or ``'file'``; ``refusals`` say why each
    earlier entrance did not take the model.
    """

    name: str
    refusals: Mapping[str, str] = field(default_factory=dict)


class Program:
    """An ONNX model as bytes, with or without its weights; each form is made once.

    ``entrance`` says how it was made. ``frozen`` are the values that the model's Python code read
    from tensors (``.item()``, sizes that depend on data): here they are constants. ``opaque`` names
    PyTorch operators that have no ONNX form and stand in the program under their own name.
    ``parsed`` is the weightless model and every value's type, where the maker knew them: nothing needs
    to be read or inferred then.
    """

    def __init__(
        self,
        *,
        weightless: Callable[[], bytes],
        with_weights: Callable[[], bytes],
        entrance: Entrance | None = None,
        frozen: tuple[Frozen, ...] = (),
        opaque: tuple[str, ...] = (),
        parsed: tuple[Any, Types] | None = None,
    ) -> None:
        self._makers = {"weightless": weightless, "with_weights": with_weights}
        self._made: dict[str, bytes] = {}
        self.entrance = entrance or Entrance("file")
        self.frozen = frozen
        self.opaque = opaque
        self.parsed = parsed

    @classmethod
    def from_bytes(cls, data: bytes, entrance: Entrance | None = None) -> Program:
        """Return the program of an ONNX file's bytes."""
        return cls(
            weightless=lambda: strip_weights(data), with_weights=lambda: data, entrance=entrance
        )

    def weightless(self) -> bytes:
        """Return the model without the data of its large tensors."""
        return self._get("weightless")

    def with_weights(self) -> bytes:
        """Return the whole model; raises ``ExportError`` where it has no weights (``meta``)."""
        return self._get("with_weights")

    def _get(self, form: str) -> bytes:
        if form not in self._made:
            self._made[form] = self._makers[form]()
        return self._made[form]
