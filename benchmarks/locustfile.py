"""Locust's users: each asks for cuts of one model, over and over.

``BENCH_PATH`` and ``BENCH_BODIES`` (a JSON list) say what is asked, ``BENCH_RATE`` how often a
second all ``BENCH_USERS`` together ask (0: as fast as they can), and ``BENCH_OUT`` where the
measured seconds go when all is over.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from pathlib import Path
from typing import Any

from locust import FastHttpUser, events, task

RATE = float(os.environ.get("BENCH_RATE", "0"))
USERS = int(os.environ.get("BENCH_USERS", "1"))
BODIES: list[str] = json.loads(os.environ.get("BENCH_BODIES", "[]"))
TURN = itertools.cycle(BODIES)
SECONDS: list[float] = []
FAILED: list[str] = []
CHANCE = random.Random(0)


def pause(_: object) -> float:
    """Seconds to the next request: independent users, as real ones are, not a burst in step."""
    return CHANCE.expovariate(RATE / USERS) if RATE else 0.0


class Analyst(FastHttpUser):
    """Asks for one cut after another."""

    wait_time = pause

    @task
    def cut(self) -> None:
        self.client.post(
            os.environ["BENCH_PATH"],
            data=next(TURN),
            headers={"Content-Type": "application/json"},
            name="cut-analysis",
        )


@events.request.add_listener  # type: ignore[untyped-decorator]
def _measured(response_time: float, exception: Any = None, **_: Any) -> None:
    SECONDS.append(response_time / 1e3)
    if exception is not None:
        FAILED.append(repr(exception))


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def _written(**_: Any) -> None:
    Path(os.environ["BENCH_OUT"]).write_text(json.dumps({"seconds": SECONDS, "failed": FAILED}))
