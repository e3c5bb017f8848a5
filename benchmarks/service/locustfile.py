"""What one user of the load test does: a cut analysis somewhere in ResNet-50, again and again.

``PACE`` is requests a second for each user, at random as independent people send them (0: as fast as
answers come), ``TARGET`` the model's id, ``TIMES`` the file that every response time is written to, in
milliseconds.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from locust import FastHttpUser, events, task

PACE = float(os.environ.get("PACE", "0"))
TARGET = os.environ.get("TARGET", "")
NODES = json.loads(os.environ.get("NODES", "[]"))

times: list[float] = []
failures: list[str] = []


@events.request.add_listener  # type: ignore[untyped-decorator]
def note(response_time: float, exception: BaseException | None, **_: Any) -> None:
    times.append(response_time)
    if exception is not None:
        failures.append(repr(exception))


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def write(**_: Any) -> None:
    Path(os.environ["TIMES"]).write_text(json.dumps({"times": times, "failures": failures[:5]}))


class Analyst(FastHttpUser):
    """Asks for cuts; each user starts elsewhere in the model."""

    def on_start(self) -> None:
        self.random = random.Random(id(self))

    def wait_time(self) -> float:
        return self.random.expovariate(PACE) if PACE else 0.0

    @task
    def cut(self) -> None:
        node = self.random.choice(NODES)
        start = self.random.randrange(40)
        body = {"node": node, "dim": 0, "index": [start, start + 1, start + 2, start + 3]}
        self.client.post(f"/v1/models/{TARGET}/cut-analysis", json=body, name="cut-analysis")
