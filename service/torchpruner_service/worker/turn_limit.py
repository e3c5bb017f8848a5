"""How many jobs of one tenant may run at once in a queue."""

from __future__ import annotations

import time

from torchpruner_service.identity import engine_version
from torchpruner_service.settings import Settings
from torchpruner_service.state.job_board import JobBoard
from torchpruner_service.state.living_workers import living

REMEMBERED = 2.0


class TurnLimit:
    """Call it for the number; 0 is any.

    Without a setting a tenant may have all workers of the queue but one, so that the next tenant
    finds one; where no keys are asked for there is one tenant alone, who may have them all.
    """

    def __init__(self, board: JobBoard, queue: str) -> None:
        self._board = board
        self._queue = queue
        self._known = 0
        self._asked = -REMEMBERED

    def __call__(self) -> int:
        settings: Settings = self._board.settings
        if settings.tenant_jobs or not settings.auth_required:
            return settings.tenant_jobs
        if time.monotonic() - self._asked > REMEMBERED:
            self._asked = time.monotonic()
            serving = [
                facts
                for facts in living(self._board.connection, self._board.keys)
                if self._queue in facts["queues"] and facts["engine"] == engine_version()
            ]
            self._known = max(1, len(serving) - 1)
        return self._known
