"""How often something may fail without getting further, before it is given up."""

from __future__ import annotations

import httpx

from torchpruner_client.errors import error_of
from torchpruner_client.retrying import RetryPolicy
from torchpruner_client.waiting import unreachable


class Patience:
    """Counts failures in a row: each method returns the seconds to wait before the next try.

    Only what gets further may call :meth:`progressed`; a server that begins again and again, or ends
    again and again, is given up after ``policy.retries`` more tries like one that is not there.
    """

    def __init__(self, policy: RetryPolicy, url: str) -> None:
        self._policy = policy
        self._url = url
        self._failures = 0

    def progressed(self) -> None:
        self._failures = 0

    def after_error(self, error: Exception) -> float:
        """Raises ``ServiceUnreachable`` where there were too many."""
        self._failures += 1
        if self._failures > self._policy.retries:
            raise unreachable(self._url, error) from error
        return self._policy.wait(self._failures)

    def after_refusal(self, answer: httpx.Response) -> float:
        """Raises the error that ``answer``, a read one of 400 or more, stands for, unless another
        try may have another answer."""
        self._failures += 1
        wait = self._policy.wait_after(answer, self._failures)
        if wait is None:
            raise error_of(answer)
        return wait
