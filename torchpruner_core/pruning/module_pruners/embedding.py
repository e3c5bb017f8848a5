"""Lookup tables: ``(num_embeddings, embedding_dim)``."""

from __future__ import annotations

from typing import Any

import numpy as np

from torchpruner_core.errors import ModulePrunerError
from torchpruner_core.pruning.module_pruners.base import BasePruner, LayerChange


class EmbeddingPruner(BasePruner):
    """``Embedding`` and ``EmbeddingBag``.

    Rows may go from the end or the middle; the padding row keeps its meaning, so it may move but
    not go.
    """

    def attributes(self, nn_module: Any, change: LayerChange) -> dict[str, Any]:
        rows, width = change.after["weight"]
        values: dict[str, Any] = {"num_embeddings": rows, "embedding_dim": width}
        padding, gone = nn_module.padding_idx, change.indices("weight", 0)
        if padding is not None and len(gone):
            if padding in gone:
                raise ModulePrunerError(
                    f"row {padding} of {self.name} is its padding row and cannot be cut",
                    module=self.name,
                    axis=0,
                    received=padding,
                )
            values["padding_idx"] = padding - int(np.searchsorted(gone, padding))
        return values
