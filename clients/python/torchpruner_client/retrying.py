"""When to try a request again, and how long to wait first."""

from __future__ import annotations

import random
from dataclasses import dataclass

import httpx

RETRIED_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Up to ``retries`` more tries; waits double from ``first`` to ``longest`` seconds, with
    jitter.

    A ``Retry-After`` of the service is kept to, unless it is longer than ``patience``: then the
    error is raised.
    """

    retries: int = 5
    first: float = 0.1
    longest: float = 5.0
    patience: float = 30.0

    def wait(self, number: int) -> float:
        """Seconds before try ``number`` (1 is the first repetition)."""
        return float(min(self.longest, self.first * 2 ** (number - 1)) * random.uniform(0.5, 1.0))

    def wait_after(self, response: httpx.Response, number: int) -> float | None:
        """Seconds before trying again after ``response``, or ``None`` to take it as it is."""
        if response.status_code not in RETRIED_STATUSES or number > self.retries:
            return None
        after = response.headers.get("retry-after", "")
        seconds = max(self.wait(number), float(after)) if after.isdigit() else self.wait(number)
        return seconds if seconds <= self.patience else None
