"""RQ's queue with tenants taking turns.

RQ's own list stays the list of what waits, whose length autoscalers read; which of its jobs is next
is decided by :class:`~torchpruner_service.state.turns.Turns`. A job waits in the line of its queue
and engine, so a worker never sees the jobs of another version.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from rq import Queue
from rq.exceptions import DequeueTimeout
from rq.job import Job

from torchpruner_service.state.turns import Turns

WAKE_SECONDS = 1.0
"""Workers look again after so long, whatever woke them or did not."""


def line_of(queue: str, engine: str) -> str:
    """The line in which jobs of an engine wait for workers of a queue."""
    return f"{queue}:{engine}"


class FairQueue(Queue):
    """One RQ queue. To push needs :meth:`for_lane`, to take needs :meth:`for_worker`."""

    turns: Turns
    line = ""
    tenant = ""
    limit: Callable[[], int] = staticmethod(lambda: 0)
    claim = 0.0

    def for_lane(self, turns: Turns, line: str, tenant: str) -> FairQueue:
        """This queue, pushing into one tenant's lane."""
        self.turns, self.line, self.tenant = turns, line, tenant
        return self

    def for_worker(
        self, turns: Turns, line: str, limit: Callable[[], int], claim: float
    ) -> FairQueue:
        """This queue, taken from: at most ``limit()`` jobs of one tenant at once (0: any), each
        claimed for ``claim`` seconds."""
        self.turns, self.line, self.limit, self.claim = turns, line, limit, claim
        return self

    def push_job_id(self, job_id: str, pipeline: Any = None, at_front: bool = False) -> None:
        super().push_job_id(job_id, pipeline=pipeline, at_front=at_front)
        if self.tenant:
            self.turns.push(self.line, self.tenant, job_id, client=pipeline)

    @classmethod
    def dequeue_any(
        cls,
        queues: Iterable[Queue],
        timeout: int | None,
        connection: Any,
        job_class: Any = None,
        serializer: Any = None,
        death_penalty_class: Any = None,
    ) -> tuple[Job, Queue] | None:
        """As RQ's: the next job of the first queue that has one, or ``DequeueTimeout``."""
        ours = [queue for queue in queues if isinstance(queue, FairQueue)]
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            for queue in ours:
                taken = queue.turns.take(
                    queue.line, limit=queue.limit(), seconds=queue.claim, listed=queue.key
                )
                if taken is None:
                    continue
                found = cls._fetch_dequeued_job(
                    connection,
                    queue.key,
                    taken.item,
                    job_class=job_class,
                    serializer=serializer,
                    death_penalty_class=death_penalty_class,
                )
                if found is not None:
                    return found
                queue.turns.done(taken)
            if deadline is None:
                return None
            left = deadline - time.monotonic()
            if left <= 0:
                raise DequeueTimeout(timeout, [queue.key for queue in ours])
            ours[0].turns.wait([queue.line for queue in ours], min(WAKE_SECONDS, left))
