"""What the living workers say of themselves; each renews its word every few seconds."""

from __future__ import annotations

import json
from typing import Any

from torchpruner_service.state.keys import Keys


def living(connection: Any, keys: Keys) -> list[dict[str, Any]]:
    """The facts of each worker that spoke within the last seconds; blocking."""
    names = [name.decode() for name in connection.smembers(keys.workers)]
    if not names:
        return []
    found = connection.mget([keys.worker(name) for name in names])
    return [json.loads(facts) for facts in found if facts is not None]
