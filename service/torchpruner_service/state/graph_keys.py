"""Graphs that Redis keeps for the API: with a life of their own, and gone with their model."""

from __future__ import annotations

from typing import Any

from torchpruner_service.state.keys import Keys
from torchpruner_service.storage import layout
from torchpruner_service.storage.objects import Objects


def drop_orphans(connection: Any, keys: Keys, objects: Objects) -> int:
    """Remove what Redis holds of models that the object store no longer has; return how many.

    To be called after garbage was collected. Blocking.
    """
    dropped = 0
    for key in connection.scan_iter(match=keys.graph("*"), count=1000):
        model = key.decode().removeprefix(keys.graph(""))
        if not objects.exists(layout.solved(model)):
            connection.delete(keys.graph(model), keys.manifest(model), keys.facts(model))
            dropped += 1
    return dropped
