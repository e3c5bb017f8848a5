"""A model as ONNX, whose weights are written out only when they are needed."""

from __future__ import annotations

from collections.abc import Callable

from torchpruner_core.importing.wire import strip_weights


class Program:
    """An ONNX model as bytes, with or without its weights; each form is made once."""

    def __init__(
        self, *, weightless: Callable[[], bytes], with_weights: Callable[[], bytes]
    ) -> None:
        self._makers = {"weightless": weightless, "with_weights": with_weights}
        self._made: dict[str, bytes] = {}

    @classmethod
    def from_bytes(cls, data: bytes) -> Program:
        """Return the program of an ONNX file's bytes."""
        return cls(weightless=lambda: strip_weights(data), with_weights=lambda: data)

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
