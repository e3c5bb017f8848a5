"""What a PyTorch program knew that ONNX cannot say, as it travels in a model's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

METADATA_KEY = "torchpruner"
"""The model metadata entry that holds :class:`Origin` as JSON."""


@dataclass(frozen=True)
class Origin:
    """What a PyTorch program knew that ONNX cannot say.

    ``aliases`` maps a name to the one whose storage it shares; ``buffers`` are the state's names
    that are not parameters, ``scalars`` those without axes; ``module_types`` maps a module's dotted
    name to its class.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()
    module_types: Mapping[str, str] = field(default_factory=dict)
    scalars: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(
            {
                "aliases": dict(self.aliases),
                "parameters": self.parameters,
                "buffers": self.buffers,
                "module_types": dict(self.module_types),
                "scalars": self.scalars,
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
                scalars=tuple(map(str, stored.get("scalars", ()))),
            )
        except (ValueError, TypeError):
            return cls()
