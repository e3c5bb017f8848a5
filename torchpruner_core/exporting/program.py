"""A model as ONNX, whose weights are written out only when they are needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torchpruner_core.importing.wire import strip_weights

METADATA_KEY = "torchpruner"
"""The model metadata entry that holds :class:`Origin` as JSON."""


@dataclass(frozen=True)
class Origin:
    """What a PyTorch program knew that ONNX cannot say.

    ``aliases`` maps a name to the one whose storage it shares; ``buffers`` are the state's names
    that are not parameters; ``module_types`` maps a module's dotted name to its class.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()
    module_types: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(
            {
                "aliases": dict(self.aliases),
                "parameters": self.parameters,
                "buffers": self.buffers,
                "module_types": dict(self.module_types),
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Origin:
        """Read a model's metadata; anything that does not fit is as if it were not there."""
        try:
            stored: dict[str, Any] = json.loads(metadata.get(METADATA_KEY, "{}"))
            return cls(
                aliases={str(k): str(v) for k, v in dict(stored.get("aliases", {})).items()},
                parameters=tuple(map(str, stored.get("parameters", ()))),
                buffers=tuple(map(str, stored.get("buffers", ()))),
                module_types={
                    str(k): str(v) for k, v in dict(stored.get("module_types", {})).items()
                },
            )
        except (ValueError, TypeError):
            return cls()


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
