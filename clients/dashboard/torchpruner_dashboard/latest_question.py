"""One question at a time, the latest one last: a slider never queues up answers nobody waits for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class LatestQuestion:
    """``await ask()`` asks about what is chosen now; while an answer is under way, the last call
    alone is asked after it."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self._busy = False
        self.superseded = False
        """Whether another question waits, so that the answer under way is of no use."""

    async def __call__(self) -> None:
        self.superseded = True
        if self._busy:
            return
        self._busy = True
        try:
            while self.superseded:
                self.superseded = False
                await self._ask()
        finally:
            self._busy = False
